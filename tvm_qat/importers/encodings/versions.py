"""The schema of each version of AIMET's encodings files.

0.5.0, 0.6.1   activation_encodings, param_encodings: {tensor: [{bitwidth, dtype, is_symmetric,
               min, max, offset, scale}, ...]}, one object for each channel
1.0.0          the same two as lists: [{name, enc_type, dtype, bw, is_sym, scale: [], offset: []}]
2.0.0, 2.1.0   encodings: [{name, output_dtype, y_scale, y_zero_point, axis}], as ONNX's
               QuantizeLinear has them: signed integers, zero points, the axis spelled out

Until 1.0.0 a file does not say along which axis channels lie: it is that of the output channels,
which depends on who reads the tensor. Source: AIMET's "Encoding Format Specification".

Files that `export_qparams` writes may add to 2.0.0, where its grids say more than AIMET's can:
`qmin` and `qmax` (a range narrower than output_dtype) and `rounding` (one of QUANTIZE_FORMULAS).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.encodings import fields
from tvm_qat.importers.encodings.fields import Entry
from tvm_qat.importers.encodings.grids import UNKNOWN_AXIS, from_offsets, storage_of
from tvm_qat.qnn.arithmetic import QUANTIZE_FORMULAS
from tvm_qat.qparams import QParams

_LEFT_IN_FLOAT = ("float16", "float32", "bfloat16")
_BLOCKED = "blockwise quantization is not supported; export per channel"


@dataclass(frozen=True)
class Encoding:
    """What a file says about one tensor.

    params : its grid; None if it stays in float. Per channel, the axis counts only if `axis` does.
    axis : of per-channel parameters, None where the file does not say it.
    kind : `int8`, `float16`: the type that the file names.
    """

    params: QParams | None
    kind: str
    axis: int | None = None
    rounding: str = "half_even"


def listed(content: Entry, modules: bool = False) -> Iterator[tuple[str, Callable[[], Encoding]]]:
    """(tensor, how to read its encoding) of every entry; reading raises InputError by itself.

    modules : whether activations may be named by torch modules, in files of any version or none:
    {module: {input: {index: object}, output: {index: object}}}. The first output of a module has its
    name; all others, and inputs, are `module:input:0`.
    """
    if modules and isinstance(content.get("activation_encodings"), dict):
        content, named = _without_modules(content)
        yield from named
        yield from _by_name(content)
        return
    version = fields.text(content, "version")
    if version not in _VERSIONS:
        known = ", ".join(_VERSIONS)
        raise UnsupportedError(f"version {version!r} of encodings is not known; known are {known}")
    yield from _VERSIONS[version](content)


def _without_modules(content: Entry) -> tuple[Entry, list[tuple[str, Callable[[], Encoding]]]]:
    """The document without the entries named by modules, and these."""
    kept: dict[str, Any] = {}
    found: list[tuple[str, Callable[[], Encoding]]] = []
    for module, value in content["activation_encodings"].items():
        if isinstance(value, list):
            kept[module] = value
            continue
        sides = fields.entry(value)
        for side in sides:
            if side not in ("input", "output"):
                raise InputError(f"{side!r} of {module!r} is neither input nor output")
            for index, one in fields.entry(sides[side]).items():
                name = module if (side, index) == ("output", "0") else f"{module}:{side}:{index}"
                channels = one if isinstance(one, list) else [one]
                found.append((name, partial(_of_channels, channels)))
    return {**content, "activation_encodings": kept}, found


def _by_name(content: Entry) -> Iterator[tuple[str, Callable[[], Encoding]]]:
    for group in _groups(content):
        for name, channels in fields.entry(content.get(group, {})).items():
            yield name, lambda channels=channels: _of_channels(channels)  # type: ignore[misc]


def _by_list(content: Entry) -> Iterator[tuple[str, Callable[[], Encoding]]]:
    for group in _groups(content):
        yield from _named(content.get(group, []), group, _of_offsets)


def _in_one_list(content: Entry) -> Iterator[tuple[str, Callable[[], Encoding]]]:
    if "encodings" not in content:
        raise InputError("it has no encodings")
    yield from _named(content["encodings"], "encodings", _of_zero_points)


def _groups(content: Entry) -> tuple[str, ...]:
    found = tuple(key for key in ("activation_encodings", "param_encodings") if key in content)
    if not found:
        raise InputError("it has neither activation_encodings nor param_encodings")
    return found


def _named(
    entries: Any, group: str, read: Callable[[Entry], Encoding]
) -> Iterator[tuple[str, Callable[[], Encoding]]]:
    if not isinstance(entries, list):
        raise InputError(f"{group} is not a list")
    for one in entries:
        yield fields.text(fields.entry(one), "name"), lambda one=one: read(one)  # type: ignore[misc]


def _of_channels(channels: Any) -> Encoding:
    """0.5.0 and 0.6.1."""
    if not isinstance(channels, list) or not channels:
        remedy = "use the encodings that AIMET exports for the ONNX model, not those for torch"
        raise InputError(f"it is not a list of objects; {remedy}")
    entries = [fields.entry(one) for one in channels]
    kinds = {
        (_dtype(one), fields.whole(one, "bitwidth"), fields.flag(one, "is_symmetric")) for one in entries
    }
    if len(kinds) > 1:
        raise InputError("its channels differ in dtype, bitwidth or is_symmetric")
    ((dtype, bits, symmetric),) = kinds
    if dtype == "float":
        return _in_float(f"float{bits}")
    scale, minimum, maximum = (
        [number for one in entries for number in _one(one, key)] if key in entries[0] else None
        for key in ("scale", "min", "max")
    )
    if scale is None:
        raise InputError("it has no scale")
    offset = [fields.whole(one, "offset") for one in entries]
    return Encoding(from_offsets(scale, offset, bits, symmetric, minimum, maximum), f"int{bits}")


def _one(one: Entry, key: str) -> list[float]:
    found = fields.reals(one, key)
    if len(found) != 1:
        raise InputError(f"{key} has {len(found)} values, not one")
    return found


def _of_offsets(one: Entry) -> Encoding:
    """1.0.0."""
    bits = fields.whole(one, "bw")
    if _dtype(one) == "float":
        return _in_float(f"float{bits}")
    form = fields.text(one, "enc_type")
    if form not in ("PER_TENSOR", "PER_CHANNEL"):
        raise UnsupportedError(
            _BLOCKED if form in ("PER_BLOCK", "LPBQ") else f"enc_type {form!r} is not known"
        )
    if "zero_point_shift" in one and any(fields.reals(one, "zero_point_shift")):
        raise UnsupportedError("zero points between two steps are not supported")
    scale = fields.reals(one, "scale")
    if form == "PER_TENSOR" and len(scale) > 1:
        raise InputError(f"it is per tensor but has {len(scale)} scales")
    offset = fields.wholes(one, "offset", len(scale))
    return Encoding(from_offsets(scale, offset, bits, fields.flag(one, "is_sym")), f"int{bits}")


def _dtype(one: Entry) -> str:
    dtype = fields.text(one, "dtype", "int").lower()
    if dtype not in ("int", "float"):
        raise InputError(f"dtype {dtype!r} is neither int nor float")
    return dtype


def _in_float(kind: str) -> Encoding:
    if kind not in _LEFT_IN_FLOAT:
        raise UnsupportedError(f"quantization to {kind} is not supported")
    return Encoding(None, kind)


def _of_zero_points(one: Entry) -> Encoding:
    """2.0.0 and 2.1.0, and what `export_qparams` adds to them."""
    kind = fields.text(one, "output_dtype")
    integer = re.fullmatch(r"(u?)int([0-9]{1,2})", kind)
    if integer is None:
        return _in_float(kind)
    if "block_size" in one or "per_block_int_scale" in one or isinstance(one.get("y_scale"), dict):
        raise UnsupportedError(_BLOCKED)
    scale = fields.reals(one, "y_scale")
    axis = fields.whole(one, "axis") if len(scale) > 1 else None
    dtype, low, high = storage_of(int(integer[2]), not integer[1])
    zero_point: Any = np.asarray(fields.wholes(one, "y_zero_point", len(scale)), np.int64)
    if np.any((zero_point < low) | (zero_point > high)):
        raise InputError(f"y_zero_point is outside [{low}, {high}]")
    qmin = fields.whole(one, "qmin") if "qmin" in one else low
    qmax = fields.whole(one, "qmax") if "qmax" in one else high
    rounding = fields.text(one, "rounding", "half_even")
    if rounding not in QUANTIZE_FORMULAS:
        raise InputError(f"rounding {rounding!r} is not known")
    placeholder = None if axis is None else UNKNOWN_AXIS
    return Encoding(
        QParams(np.asarray(scale), zero_point, dtype, placeholder, qmin, qmax), kind, axis, rounding
    )


_VERSIONS: dict[str, Callable[[Entry], Iterator[tuple[str, Callable[[], Encoding]]]]] = {
    "0.5.0": _by_name,
    "0.6.1": _by_name,
    "1.0.0": _by_list,
    "2.0.0": _in_one_list,
    "2.1.0": _in_one_list,
}
