"""Reads a TFLite file into a Model, trusting nothing in it.

The flatbuffers library reads from a bytes object by offsets in the file: one that points outside
raises here, and nothing is executed or copied. What it does not guard against is size: a vector
may claim any length, and tables may be shared. So every length is compared with the file's, and
the number of elements that are visited is too: an honest file has fewer than it has bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tflite
from flatbuffers import number_types

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tflite.model import Graph, Model, Operator
from tvm_qat.importers.tflite.tensors import tensor_of

AGAIN = "copy or export it again"
_KINDS: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, UnicodeDecodeError)
"""What reading outside the file, or text that is none, raises."""


def load(source: Any) -> Model:
    """source: an existing regular file, or its bytes."""
    file = source.name if isinstance(source, Path) else "model"
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    if not data:
        raise InputError(located("the file is empty", file=file, remedy=AGAIN))
    if data[4:8] != b"TFL3":
        raise InputError(located("is not a TFLite model", file=file, remedy=AGAIN))
    try:
        return _Reader(data, file).model()
    except InputError as error:
        raise type(error)(located(str(error), file=file)) from None
    except _DAMAGE as error:
        reason = f"is truncated or damaged: {error}"
        raise InputError(located(reason, file=file, remedy=AGAIN)) from None


class _Reader:
    """One pass over one file."""

    def __init__(self, data: bytes, file: str) -> None:
        self.data = data
        self.file = file
        self._left = len(data)

    def model(self) -> Model:
        root = tflite.Model.GetRootAs(self.data, 0)
        if root.Version() != 3:
            raise UnsupportedError(f"its schema has version {root.Version()}, not 3")
        codes = [self._kind(code) for code in self.each(root.OperatorCodes, root.OperatorCodesLength())]
        buffers = list(self.each(root.Buffers, root.BuffersLength()))
        graphs = [
            self._graph(graph, codes, buffers) for graph in self.each(root.Subgraphs, root.SubgraphsLength())
        ]
        if not graphs:
            raise InputError("holds no graph")
        signatures = {
            _text(s.SignatureKey()): int(s.SubgraphIndex())
            for s in self.each(root.SignatureDefs, root.SignatureDefsLength())
        }
        wrong = [key for key, index in signatures.items() if index >= len(graphs)]
        if wrong:
            raise InputError(f"signature {wrong[0]!r} names a graph that is not there")
        return Model(self.file, tuple(graphs), signatures)

    def each(self, get: Callable[[int], Any], length: int) -> Iterator[Any]:
        """The elements of a vector, within what a file of this size can hold."""
        self._left -= length
        if self._left < 0:
            raise InputError("is damaged: its tables claim more elements than the file has bytes")
        return (get(i) for i in range(length))

    def indices(self, get: Callable[[], Any], length: int, tensors: int) -> tuple[int, ...]:
        """A vector of tensor indices; -1 stands for none."""
        found = tuple(int(i) for i in self.each(lambda i: i, length)) and tuple(get().tolist())
        wrong = [index for index in found if not -1 <= index < tensors]
        if wrong:
            raise InputError(f"a tensor {wrong[0]} is named, but there are {tensors}")
        return found

    def _kind(self, code: Any) -> str:
        """The newer field holds what the older one, a byte, cannot; old files have only that."""
        tab = code._tab
        offset = number_types.UOffsetTFlags.py_type(tab.Offset(10))
        newer = tab.Get(number_types.Int32Flags, offset + tab.Pos) if offset else 0
        number = max(int(newer), int(code.DeprecatedBuiltinCode()))
        if _KINDS.get(number) == "CUSTOM":
            return f"CUSTOM {_text(code.CustomCode())}"
        return _KINDS.get(number, f"operator {number}")

    def _graph(self, graph: Any, codes: list[str], buffers: list[Any]) -> Graph:
        tensors = tuple(
            tensor_of(tensor, buffers) for tensor in self.each(graph.Tensors, graph.TensorsLength())
        )
        count = len(tensors)
        operators = []
        for index, operator in enumerate(self.each(graph.Operators, graph.OperatorsLength())):
            code = int(operator.OpcodeIndex())
            if code >= len(codes):
                raise InputError(f"operator {index} is of a kind that is not declared")
            inputs = self.indices(operator.InputsAsNumpy, operator.InputsLength(), count)
            outputs = self.indices(operator.OutputsAsNumpy, operator.OutputsLength(), count)
            inner = self.indices(operator.IntermediatesAsNumpy, operator.IntermediatesLength(), count)
            name = tensors[outputs[0]].name if outputs and outputs[0] >= 0 else ""
            options = (int(operator.BuiltinOptionsType()), operator.BuiltinOptions())
            operators.append(
                Operator(name or f"{codes[code]}_{index}", codes[code], inputs, outputs, inner, options)
            )
        inputs = self.indices(graph.InputsAsNumpy, graph.InputsLength(), count)
        outputs = self.indices(graph.OutputsAsNumpy, graph.OutputsLength(), count)
        return Graph(tensors, tuple(operators), inputs, outputs)


def _text(value: bytes | None) -> str:
    return str(value or b"", "utf-8")
