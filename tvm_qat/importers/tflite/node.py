"""One operator as a converter sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite
from flatbuffers.table import Table

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tflite.model import Operator, Tensor
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, array_of, const, is_const, relax, shape_of
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

ROUNDING = "half_away"
"""How TFLite quantizes: TfLiteRound(x / scale) + zero_point, which is std::round."""

NO_OPTIONS = Table(b"\x04\x00\x04\x00\x04\x00\x00\x00", 4)
"""A table without fields: every option has the schema's default."""


@dataclass(frozen=True)
class Node:
    """An operator with its operands translated.

    operands : tensors as they are stored; None where one is left out.
    inputs, outputs : what the file says about these tensors.
    """

    operator: Operator
    operands: tuple[Expr | None, ...]
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    write: Writer

    def options(self, name: str) -> Any:
        """The built-in options of type `name` (`Conv2DOptions`)."""
        kind, table = self.operator.options
        if kind not in (0, getattr(tflite.BuiltinOptions, name)):
            raise InputError(f"its options are of type {kind}, not {name}")
        found = getattr(tflite, name)()
        table = NO_OPTIONS if table is None or not kind else table
        found.Init(table.Bytes, table.Pos)
        return found

    def has(self, index: int) -> bool:
        return index < len(self.operands) and self.operands[index] is not None

    def stored(self, index: int) -> Expr:
        """Operand `index` as it is stored: integers where it is quantized."""
        value = self.operands[index] if index < len(self.operands) else None
        if value is None:
            raise InputError(f"input {index} is missing")
        return value

    def tensor(self, index: int) -> Tensor:
        self.stored(index)
        tensor = self.inputs[index]
        assert tensor is not None
        return tensor

    def params(self, index: int) -> QParams | None:
        return self.tensor(index).params

    def real(self, index: int) -> Expr:
        """Operand `index` in real numbers."""
        value, params = self.stored(index), self.params(index)
        if params is not None:
            return self.write(build.dequantize(value, params))
        if self.tensor(index).dtype == "float16":
            return self.write(relax.op.astype(value, "float32"))
        return value

    def shape(self, index: int) -> tuple[int, ...]:
        shape = shape_of(self.stored(index))
        if shape is None:
            raise InputError(f"the rank of input {index} is not known")
        return tuple(int(d) for d in shape)

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """The stored values of a constant operand; None if it is left out or computed."""
        return array_of(self.stored(index)) if self.has(index) and is_const(self.stored(index)) else None

    def numbers(self, index: int) -> list[int]:
        """A constant vector of whole numbers: axes, paddings, a shape."""
        values = self.constant(index)
        if values is None:
            self.stored(index)
            raise UnsupportedError(f"input {index} is computed at run time; export it as a constant")
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"input {index} holds {values.dtype}, not integers")
        return [int(value) for value in values.reshape(-1)]

    def axes(self, values: list[int], rank: int) -> list[int]:
        """Non-negative, sorted, each once."""
        wrong = [axis for axis in values if not -rank <= axis < rank]
        if wrong:
            raise InputError(f"axis {wrong[0]} is out of range for rank {rank}")
        return sorted({axis % rank for axis in values})

    def result(self, value: Expr, activation: int = 0, index: int = 0) -> Expr:
        """A real number as output `index` is stored, after the fused activation."""
        params = self.outputs[index].params
        if params is None:
            return _activated(self.write, value, activation)
        return build.quantize(self.write(value), narrowed(params, activation), ROUNDING)

    def moved(self, index: int, move: Callable[[Expr], Expr], output: int = 0) -> Expr:
        """A movement of elements: of the integers where both sides have one grid."""
        before, after = self.params(index), self.outputs[output].params
        if before == after:
            return move(self.stored(index))
        return self.result(self.write(move(self.real(index))), index=output)


_BOUNDS = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""ActivationFunctionType: none, relu, relu between -1 and 1, relu6."""


def _bounds(activation: int) -> tuple[float | None, float | None]:
    if activation not in _BOUNDS:
        raise UnsupportedError(f"fused activation {activation} is not supported")
    return _BOUNDS[activation]


def narrowed(params: QParams, activation: int) -> QParams:
    """The range cut to a fused activation: CalculateActivationRangeQuantized of LiteRT."""
    low, high = _bounds(activation)
    least, most = params.range
    scale, zero_point = params.scale.astype(np.float32).reshape(-1)[0], int(params.zero_point.reshape(-1)[0])
    if low is not None:
        least = max(least, zero_point + _steps(low, scale))
    if high is not None:
        most = min(most, zero_point + _steps(high, scale))
    if least >= most:
        raise UnsupportedError("its fused activation leaves a single value of its result's grid")
    return params.with_(qmin=least, qmax=most)


def _steps(bound: float, scale: np.float32) -> int:
    """bound / scale, rounded half away from zero; LiteRT refuses what exceeds 32 bits, too."""
    with np.errstate(over="ignore"):
        x = np.float32(bound) / scale
    if abs(x) >= 2**31:
        raise InputError(f"the scale of its result, {scale:g}, is too small for its fused activation")
    return int(np.trunc(x + np.copysign(np.float32(0.5), x)))


def _activated(write: Writer, value: Expr, activation: int) -> Expr:
    low, high = _bounds(activation)
    if low is None:
        return value
    bound = write(value)
    return relax.op.nn.relu(bound) if high is None else relax.op.clip(bound, low, high)


def plain(values: npt.ArrayLike, dtype: str | None = None, name: str | None = None) -> Expr:
    """A constant in the machine's byte order; name: of the tensor that it is in the model."""
    array = np.asarray(values)
    return const(array, dtype or array.dtype.name, name)
