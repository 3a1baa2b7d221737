"""The float model under a Q/DQ model: the other half of what its encodings say.

Before:                                            After:
    xq = QuantizeLinear(x); xd = DequantizeLinear(xq)      y = Conv(x, w)      x, w: see encodings
    wd = DequantizeLinear(wq)                              w under the name of wq, in float
    y = Conv(xd, wd)

Where something else reads x as it is, xd stays as `Identity(x)`, so that only its own readers are
quantized. Names agree with those of `exchange.export_qparams`. All or nothing: what encodings
cannot say (operators on integers, blocks, parameters computed at run time) is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.importers.onnx.check import checked
from tvm_qat.importers.onnx.fold import constant_of
from tvm_qat.importers.onnx.grids import INTEGERS
from tvm_qat.importers.onnx.load import Model, load
from tvm_qat.importers.onnx.tensors import to_array, type_name
from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]


def float_model(source: Any) -> ModelProto:
    """source: a path, bytes or an onnx.ModelProto of a Q/DQ model.

    Raises UnsupportedError with the names of all nodes whose quantization encodings cannot say.
    """
    model = checked(load(source))
    stripping = _Stripping(model)
    for node in model.proto.graph.node:
        stripping.visit(node)
    return stripping.result()


class _Stripping:
    """One walk; `_names` maps what was read after a DequantizeLinear to what is read instead."""

    def __init__(self, model: Model) -> None:
        self._model = model
        graph = model.proto.graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._constants = {n.output[0]: n for n in graph.node if n.op_type == "Constant" and not n.domain}
        self._outputs = {output.name for output in graph.output}
        self._reads = Counter(name for node in graph.node for name in node.input) + Counter(self._outputs)
        self._same = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
        self._quantizes: dict[str, NodeProto] = {}
        self._dequantized: dict[str, tuple[NodeProto, TensorProto]] = {}
        self._names: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._nodes: list[NodeProto] = []
        self._left: list[str] = []

    def visit(self, node: NodeProto) -> None:
        if node.op_type == "QuantizeLinear":
            self._quantizes[node.output[0]] = node
            read_by = [n for n in self._model.proto.graph.node if node.output[0] in n.input]
            if node.output[0] in self._outputs or any(n.op_type != "DequantizeLinear" for n in read_by):
                self._left.append(node.name)
        elif node.op_type == "DequantizeLinear":
            if not (self._after_quantize(node) or self._of_constant(node)):
                self._left.append(node.name)
        else:
            if "Integer" in node.op_type or "QLinear" in node.op_type or node.op_type.startswith("DynamicQ"):
                self._left.append(node.name)
            self._nodes.append(self._renamed(node))

    def _after_quantize(self, node: NodeProto) -> bool:
        before = self._quantizes.get(node.input[0])
        if before is None or not self._same_grid(before, node):
            return False
        data, result = self._names.get(before.input[0], before.input[0]), node.output[0]
        if node.input[0] in self._first:
            self._names[result] = self._first[node.input[0]]
        elif self._alone(before.input[0]):
            self._names[result] = data
        else:
            self._nodes.append(helper.make_node("Identity", [data], [result], node.name))
        self._first.setdefault(node.input[0], self._names.get(result, result))
        if result in self._outputs and result in self._names:
            self._nodes.append(helper.make_node("Identity", [self._names[result]], [result], node.name))
        return True

    def _alone(self, name: str) -> bool:
        """Whether one node alone reads it, under any name."""
        alone = self._reads[name] == 1
        return alone and (name not in self._same or self._alone(self._same[name]))

    def _of_constant(self, node: NodeProto) -> bool:
        """A constant of integers, which becomes one of floats with the same name."""
        data, stored = node.input[0], self._stored.get(node.input[0])
        scale, zero_point = self._constant(node.input[1]), np.zeros((), np.int32)
        if len(node.input) > 2 and node.input[2]:
            zero_point = self._constant(node.input[2])  # type: ignore[assignment]
        if stored is None or type_name(stored.data_type) not in INTEGERS or scale is None:
            return False
        if zero_point is None or _blocked(node) or node.output[0] in self._outputs:
            return False
        earlier = self._dequantized.get(data)
        if earlier is not None and not self._same_grid(earlier[0], node):
            return False
        values = to_array(stored, self._model.folder)
        params = QParams(scale, zero_point, str(values.dtype), _axis(node)).check_axis(values.shape)
        real = arithmetic.dequantize(values, params).astype(scale.dtype)
        self._dequantized[data] = (node, numpy_helper.from_array(real, data))
        self._names[node.output[0]] = data
        return True

    def _same_grid(self, one: NodeProto, other: NodeProto) -> bool:
        if _blocked(one) or _axis(one) != _axis(other) or len(one.input) != len(other.input):
            return False
        pairs = zip(one.input[1:], other.input[1:], strict=True)
        return all(self._equal(*pair) for pair in pairs)

    def _equal(self, one: str, other: str) -> bool:
        first, second = self._constant(one), self._constant(other)
        return first is not None and second is not None and np.array_equal(first, second)

    def _constant(self, name: str) -> Array | None:
        if name in self._stored:
            return to_array(self._stored[name], self._model.folder)
        return constant_of(self._constants[name], self._model.folder) if name in self._constants else None

    def _renamed(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(copy.input):
            copy.input[index] = self._names.get(name, name)
        return copy

    def result(self) -> ModelProto:
        if self._left:
            shown = ", ".join(map(repr, self._left[:5])) + (" and more" if len(self._left) > 5 else "")
            reason = f"encodings cannot say how these nodes quantize: {shown}"
            raise UnsupportedError(located(reason, file=self._model.file))
        proto = ModelProto()
        proto.CopyFrom(self._model.proto)
        graph = proto.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:], graph.quantization_annotation[:]
        read = {name for node in self._nodes for name in node.input} | self._outputs
        graph.node.extend(n for n in self._nodes if n.op_type != "Constant" or n.output[0] in read)
        for name in (name for name in (*self._stored, *self._constants) if name in read):
            if name in self._dequantized:
                graph.initializer.append(self._dequantized[name][1])
            elif name in self._stored:
                graph.initializer.append(self._embedded(self._stored[name]))
        return proto

    def _embedded(self, tensor: TensorProto) -> TensorProto:
        if tensor.data_location != TensorProto.EXTERNAL:
            return tensor
        return numpy_helper.from_array(to_array(tensor, self._model.folder), tensor.name)


def _axis(node: NodeProto) -> int:
    return int(next((a.i for a in node.attribute if a.name == "axis"), 1))


def _blocked(node: NodeProto) -> bool:
    return any(a.name == "block_size" and a.i for a in node.attribute)
