"""Folds batch normalization in a float ONNX model whose encodings were made for the folded weights.

AIMET folds batch norms into the weights before it trains, and exports the folded model. Someone
who has only the original model still finds the batch norms in it, and the encodings of the
weights would be laid on weights of other magnitudes. Before that, here:

    y = BatchNormalization(Conv(x, w, b))    becomes    y = Conv(x, w * a, (b - mean) * a + beta)

with a = gamma / sqrt(variance + epsilon), in float64 and rounded once.

How the encodings tell: they name the weight, but neither a parameter of the batch norm nor the
tensor between the two, which a model that was trained with its batch norm would have; and their
ranges fit the folded weight better than the weight as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, numpy_helper

from tvm_qat.importers.encodings import Overlay
from tvm_qat.importers.onnx.load import Model
from tvm_qat.importers.onnx.tensors import to_array
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]
_DEFAULT_EPSILON = 1e-5


def fold_batch_norms(model: Model, overlay: Overlay) -> Model:
    """The model without the batch norms that its encodings do not know of."""
    if not any(node.op_type == "BatchNormalization" for node in model.proto.graph.node) or not overlay:
        return model
    folding = _Folding(model, overlay)
    for node in model.proto.graph.node:
        folding.visit(node)
    return folding.result()


class _Folding:
    """One walk: initializers as they are by now, and who made each value."""

    def __init__(self, model: Model, overlay: Overlay) -> None:
        self._model, self._overlay = model, overlay
        graph = model.proto.graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._readers: dict[str, int] = {}
        for name in (*(n for node in graph.node for n in node.input), *(o.name for o in graph.output)):
            self._readers[name] = self._readers.get(name, 0) + 1
        self._changed: dict[str, Array] = {}
        self._nodes: list[NodeProto] = []
        self._makers: dict[str, NodeProto] = {}

    def visit(self, node: NodeProto) -> None:
        maker = self._makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if maker is None or not self._fold(maker, node):
            copy = NodeProto()
            copy.CopyFrom(node)
            self._nodes.append(copy)
            self._makers.update(dict.fromkeys(filter(None, node.output), copy))

    def _fold(self, maker: NodeProto, norm: NodeProto) -> bool:
        """Whether `norm` went into `maker`, which is changed then."""
        axis = _weight_axis(maker)
        found = self._overlay.entries.get(maker.input[1]) if axis is not None else None
        if axis is None or found is None or found.params is None or not self._only_in_original(maker, norm):
            return False
        weight, *params = (self._constant(name) for name in (maker.input[1], *norm.input[1:5]))
        bias = self._constant(maker.input[2]) if _has_bias(maker) else np.zeros(())
        if weight is None or bias is None or any(param is None for param in params):
            return False
        gamma, beta, mean, variance = (np.asarray(param, np.float64) for param in params)
        factor = gamma / np.sqrt(variance + _epsilon(norm))
        if factor.shape != (weight.shape[axis],):
            return False
        folded = weight * factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        if not _misfit(folded, found.params, axis) < _misfit(weight, found.params, axis):
            return False
        self._changed[maker.input[1]] = folded.astype(weight.dtype)
        self._changed[_named_bias(maker)] = ((bias - mean) * factor + beta).astype(weight.dtype)
        self._makers[norm.output[0]] = self._makers.pop(maker.output[0])
        maker.output[0] = norm.output[0]
        return True

    def _only_in_original(self, maker: NodeProto, norm: NodeProto) -> bool:
        """Whether nothing but these two reads what is folded, and the encodings do not know `norm`."""
        between = norm.input[0]
        if any(self._readers[name] > 1 for name in (between, *maker.input[1:3]) if name):
            return False
        return not any(name in self._overlay.entries for name in (between, *norm.input[1:5]))

    def _constant(self, name: str) -> Array | None:
        if name in self._changed:
            return self._changed[name]
        return to_array(self._stored[name], self._model.folder) if name in self._stored else None

    def result(self) -> Model:
        proto = ModelProto()
        proto.CopyFrom(self._model.proto)
        del proto.graph.node[:], proto.graph.initializer[:]
        proto.graph.node.extend(self._nodes)
        kept = (tensor for name, tensor in self._stored.items() if name not in self._changed)
        made = (numpy_helper.from_array(values, name) for name, values in self._changed.items())
        proto.graph.initializer.extend([*kept, *made])
        return replace(self._model, proto=proto)


def _has_bias(node: NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _named_bias(node: NodeProto) -> str:
    """The bias that the node reads; a new one is called as torch would call it."""
    weight = str(node.input[1])
    if not _has_bias(node):
        del node.input[2:]
        stem = weight.removesuffix("weight")
        node.input.append(f"{stem}bias" if stem != weight else f"{weight}_bias")
    return str(node.input[2])


def _weight_axis(node: NodeProto) -> int | None:
    """The axis of the output channels; None for what takes no factor into its weight."""
    attrs: Mapping[str, Any] = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if "group" not in attrs or attrs["group"].i == 1 else None
    if node.op_type == "Gemm" and all(attrs[name].f == 1 for name in ("alpha", "beta") if name in attrs):
        return 0 if "transB" in attrs and attrs["transB"].i else 1
    return None


def _epsilon(norm: NodeProto) -> float:
    return float(next((a.f for a in norm.attribute if a.name == "epsilon"), _DEFAULT_EPSILON))


def _misfit(weight: Array, params: QParams, axis: int) -> float:
    """How far the greatest |weight| of each channel is from the end of its range, in octaves."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    reach = params.scale * np.maximum(
        params.range[1] - params.zero_point, params.zero_point - params.range[0]
    )
    peak = np.abs(weight).max(axis=others) if reach.ndim else np.abs(weight).max()
    if peak.shape != reach.shape:
        return float("inf")
    return float(np.abs(np.log2(np.maximum(peak, 1e-30) / reach)).mean())
