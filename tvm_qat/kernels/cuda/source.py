"""The C++ that generated kernels call: helpers from `device/`, and the functions of `functions.FORMULAS`.

The formulas are written once, against `numbers.Numbers`; `SourceNumbers` reads them as C++. Compiled
without contraction of products and sums (see package.cuda) they give the bits of every other target.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tvm_qat.kernels.functions import FORMULAS

_FOLDER = Path(__file__).parent / "device"
PRIMITIVES = "primitives.cuh"
_PARTS = ("operands.cuh", "sums.cuh", "dots.cuh", "thin.cuh", "threads.cuh")

_TYPES = {"float32": "float", "float64": "double", "int32": "int", "int64": "long long", "bool": "bool"}
_BITS = {"float32": "float", "float64": "double", "int32": "int", "int64": "long"}


@cache
def device_code(primitives: bool = True) -> str:
    """All helpers. primitives : with those of the hardware; an emulator brings its own."""
    files = (PRIMITIVES, *_PARTS) if primitives else _PARTS
    parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in files]
    return "\n".join([*parts, *(_function(name) for name in FORMULAS)])


def with_device_code(code: str) -> str:
    """TVM's CUDA source with the helpers before its first kernel."""
    head, kernel, rest = code.partition('extern "C" __global__')
    return f"{head}\n{device_code()}\n{kernel}{rest}"


def _function(name: str) -> str:
    parameters = ("x", "y") if name == "pow" else ("x",)
    lines: list[str] = []
    numbers = SourceNumbers(lines)
    result = FORMULAS[name](numbers, *(Text(p, "float32") for p in parameters))
    listed = ", ".join(f"float {p}" for p in parameters)
    body = "\n".join(f"  {line}" for line in [*lines, f"return {result.text};"])
    return f"QAT_DEVICE float qat_{name}({listed}) {{\n{body}\n}}\n"


class Text:
    """An expression of C++ and its dtype."""

    def __init__(self, text: str, dtype: str) -> None:
        self.text, self.dtype = text, dtype

    def _with(self, sign: str, other: Text, dtype: str | None = None) -> Text:
        return Text(f"({self.text} {sign} {other.text})", dtype or self.dtype)

    def __add__(self, other: Text) -> Text:
        return self._with("+", other)

    def __sub__(self, other: Text) -> Text:
        return self._with("-", other)

    def __mul__(self, other: Text) -> Text:
        return self._with("*", other)

    def __truediv__(self, other: Text) -> Text:
        return self._with("/", other)

    def __lt__(self, other: Text) -> Text:
        return self._with("<", other, "bool")

    def __gt__(self, other: Text) -> Text:
        return self._with(">", other, "bool")


class SourceNumbers:
    """Numbers of C++; each `named` one is a constant of its own in `lines`."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def of(self, value: float, dtype: str = "float32") -> Text:
        return Text(_literal(value, dtype), dtype)

    def named(self, x: Text) -> Text:
        name = f"v{len(self._lines)}"
        self._lines.append(f"const {_TYPES[x.dtype]} {name} = {x.text};")
        return Text(name, x.dtype)

    def fence(self, x: Text) -> Text:
        return Text(f"qat_fence({x.text})", x.dtype)

    def cast(self, x: Text, dtype: str) -> Text:
        return Text(f"static_cast<{_TYPES[dtype]}>({x.text})", dtype)

    def bits(self, x: Text, dtype: str) -> Text:
        return Text(f"qat_bits_{_BITS[dtype]}({x.text})", dtype)

    def select(self, condition: Text, yes: Text, no: Text) -> Text:
        return Text(f"({condition.text} ? {yes.text} : {no.text})", yes.dtype)

    def both(self, x: Text, y: Text) -> Text:
        return Text(f"({x.text} && {y.text})", "bool")

    def equal(self, x: Text, y: Text) -> Text:
        return Text(f"({x.text} == {y.text})", "bool")

    def differ(self, x: Text, y: Text) -> Text:
        return Text(f"({x.text} != {y.text})", "bool")

    def shift_left(self, x: Text, by: int) -> Text:
        unsigned = f"static_cast<unsigned {_TYPES[x.dtype]}>({x.text})"
        return Text(f"static_cast<{_TYPES[x.dtype]}>({unsigned} << {by})", x.dtype)

    def shift_right(self, x: Text, by: int) -> Text:
        return Text(f"({x.text} >> {by})", x.dtype)

    def masked(self, x: Text, mask: int) -> Text:
        return Text(f"({x.text} & {_literal(mask, x.dtype)})", x.dtype)

    def magnitude(self, x: Text) -> Text:
        return Text(f"fabsf({x.text})", x.dtype)


def _integer(value: float, suffix: str) -> str:
    return f"({int(value)}{suffix})"


def _float32(value: float) -> str:
    bits = int(np.float32(value).view(np.int32))
    return f"qat_bits_float({bits})" if not np.isfinite(value) else f"({float(np.float32(value)).hex()}f)"


def _float64(value: float) -> str:
    bits = int(np.float64(value).view(np.int64))
    return f"qat_bits_double({bits}LL)" if not np.isfinite(value) else f"({float(value).hex()})"


_LITERALS: dict[str, Callable[[float], str]] = {
    "float32": _float32,
    "float64": _float64,
    "int32": lambda value: _integer(value, ""),
    "int64": lambda value: _integer(value, "LL"),
}


def _literal(value: float, dtype: str) -> str:
    return _LITERALS[dtype](value)
