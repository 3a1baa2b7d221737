"""Parts of an ONNX model: some of its nodes, with what they read as inputs of the part."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, ValueInfoProto, external_data_helper, helper, shape_inference

from tvm_qat.errors import InputError, located
from tvm_qat.importers.onnx.check import checked
from tvm_qat.importers.onnx.load import load

Array = npt.NDArray[Any]


class Source:
    """An ONNX model, its nodes told apart: those that compute, and those that constants alone decide.

    A constant node goes wherever a node goes that reads it, so a cut never runs through constants.
    Nodes are numbers in the order of the file.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        self.nodes = list(proto.graph.node)
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._maker = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.constant = self._constant_nodes()
        self.active = [i for i in range(len(self.nodes)) if i not in self.constant]

    def _constant_nodes(self) -> frozenset[int]:
        known, found = set(self._initializers), set()
        for i, node in enumerate(self.nodes):
            if all(name in known for name in node.input if name):
                found.add(i)
                known.update(node.output)
        return frozenset(found)

    @cached_property
    def types(self) -> dict[str, int]:
        """The ONNX element type of every tensor that onnx can name one for."""
        inferred = shape_inference.infer_shapes(self.proto).graph
        infos = (*inferred.value_info, *inferred.output, *inferred.input)
        return {info.name: kind for info in infos if (kind := info.type.tensor_type.elem_type)}

    @cached_property
    def neighbours(self) -> dict[int, set[int]]:
        """Of each node that computes: the others that it reads from or that read from it."""
        found: dict[int, set[int]] = {i: set() for i in self.active}
        for i in self.active:
            for name in self.nodes[i].input:
                maker = self._maker.get(name)
                if maker in found:
                    found[i].add(maker)
                    found[maker].add(i)
        return found

    @property
    def ends(self) -> list[int]:
        """The nodes that make the model's outputs."""
        makers = [self._maker.get(output.name) for output in self.proto.graph.output]
        return [i for i in makers if i is not None and i not in self.constant]

    def find(self, name: str | None) -> list[int]:
        """The node of this name, or that makes the tensor of this name."""
        named = [i for i in self.active if self.nodes[i].name == name]
        return named or [i for i in self.active if name in self.nodes[i].output]

    def tensors(self, nodes: Iterable[int]) -> list[str]:
        """What these nodes make and onnx knows a type for."""
        return [name for i in nodes for name in self.nodes[i].output if name in self.types]

    def cut(self, kept: Collection[int], values: Mapping[str, Array]) -> ModelProto | None:
        """The model of these nodes and of the constants that they read.

        values : of the tensors that become inputs, with their shapes. None where one is not known.
        """
        whole = sorted({*kept, *self._constants_of(kept)})
        made = {name for i in whole for name in self.nodes[i].output}
        read = dict.fromkeys(name for i in whole for name in self.nodes[i].input if name)
        inputs = [name for name in read if name not in made and name not in self._initializers]
        outputs = self._results(kept, set(read))
        if not outputs or any(name not in values or not self._type(name, values) for name in inputs):
            return None
        infos = [
            helper.make_tensor_value_info(name, self._type(name, values), values[name].shape)
            for name in inputs
        ]
        return self._model(whole, infos, [self._untold(name) for name in outputs])

    def first(self, count: int, outputs: Iterable[str] = ()) -> ModelProto:
        """The first `count` nodes that compute, all constant ones, and the model's own inputs.

        outputs : tensors to give out; by default those that none of the nodes reads.
        """
        kept = self.active[:count]
        read = {name for i in kept for name in self.nodes[i].input}
        names = list(outputs) or self._results(kept, read)
        whole = sorted({*kept, *self._constants_of(kept)})
        return self._model(whole, self.proto.graph.input, [self._untold(name) for name in names])

    def inputs_alone(self) -> ModelProto:
        """A model that hands its inputs on."""
        given = [info for info in self.proto.graph.input if info.name not in self._initializers]
        model = self._model([], given, [ValueInfoProto(name=f"{info.name}/same") for info in given])
        for info, result in zip(given, model.graph.output, strict=True):
            result.type.CopyFrom(info.type)
            model.graph.node.append(helper.make_node("Identity", [info.name], [result.name]))
        return model

    def _model(
        self, nodes: Iterable[int], inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto]
    ) -> ModelProto:
        model = ModelProto()
        model.ir_version = self.proto.ir_version
        model.opset_import.extend(self.proto.opset_import)
        graph = model.graph
        graph.name = self.proto.graph.name
        graph.node.extend(self.nodes[i] for i in nodes)
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(self._initializers[name] for name in self._initializers if name in read)
        graph.input.extend(info for info in inputs)
        graph.output.extend(outputs)
        return model

    def _constants_of(self, kept: Collection[int]) -> set[int]:
        found: set[int] = set()
        waiting = [name for i in kept for name in self.nodes[i].input]
        while waiting:
            maker = self._maker.get(waiting.pop())
            if maker is not None and maker in self.constant and maker not in found:
                found.add(maker)
                waiting += self.nodes[maker].input
        return found

    def _results(self, kept: Collection[int], read: Collection[str]) -> list[str]:
        """What the nodes make for others: the model's own outputs, and what only nodes outside read."""
        own = {output.name for output in self.proto.graph.output}
        wanted = {name for node in self.nodes for name in node.input if name}
        made = [name for i in sorted(kept) for name in self.nodes[i].output]
        return [name for name in made if name in own or (name in wanted and name not in read)]

    def _type(self, name: str, values: Mapping[str, Array]) -> int:
        known = self.types.get(name)
        return known or int(helper.np_dtype_to_tensor_dtype(np.dtype(values[name].dtype)))

    def _untold(self, name: str) -> ValueInfoProto:
        """An output without a shape: the importer finds it out."""
        kind = self.types.get(name)
        return helper.make_tensor_value_info(name, kind, None) if kind else ValueInfoProto(name=name)


def source_of_file(model: Any, format: str | None) -> Source:
    """model : path of an ONNX file, or a ModelProto. Raises InputError for all else."""
    is_path = isinstance(model, str | os.PathLike)
    is_file = is_path and (format or Path(model).suffix[1:].lower()) == "onnx"
    if not is_file and not isinstance(model, onnx.ModelProto):
        name = str(model) if is_path else type(model).__name__
        reason = "cannot be reduced: --reduce cuts nodes out of ONNX files"
        raise InputError(located(reason, file=name, remedy="leave out --reduce, or export to ONNX"))
    try:
        loaded = load(Path(model) if is_path else model)
    except OSError as error:
        raise InputError(located(f"cannot be read: {error.strerror or error}", file=str(model))) from None
    if loaded.folder is not None:
        try:
            external_data_helper.load_external_data_for_model(loaded.proto, str(loaded.folder))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise InputError(located(f"its external data: {error}", file=loaded.file)) from None
    try:
        return Source(checked(loaded).proto)
    except InputError:
        # what the importer refuses may be the very fault that is looked for
        return Source(loaded.proto)
