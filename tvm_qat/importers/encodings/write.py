"""QParams as a document of version 2.0.0, which `read_encodings` reads back to the same bits.

What AIMET's schema has no place for is added only where it is needed: `qmin` and `qmax` for a
range narrower than its type, `rounding` for any other than half to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tvm_qat.importers.encodings.grids import storage_of
from tvm_qat.qparams import QParams

VERSION = "2.0.0"


def encodings_document(grids: Mapping[str, tuple[QParams, str]]) -> dict[str, Any]:
    """grids : (parameters, rounding of the quantize) by tensor."""
    entries = [_entry(name, params, rounding) for name, (params, rounding) in grids.items()]
    return {"version": VERSION, "encodings": entries}


def _entry(name: str, params: QParams, rounding: str) -> dict[str, Any]:
    kind = _output_dtype(params)
    scale: Any = params.scale
    zero_point: Any = params.zero_point
    if params.channels is not None:
        scale, zero_point = (np.broadcast_to(part, (params.channels,)) for part in (scale, zero_point))
    entry: dict[str, Any] = {"name": name, "output_dtype": kind, "y_scale": scale.tolist()}
    if np.any(zero_point):
        entry["y_zero_point"] = zero_point.tolist()
    if params.axis is not None:
        entry["axis"] = params.axis
    if kind == params.dtype and params.range != _whole(params):
        entry |= {"qmin": params.range[0], "qmax": params.range[1]}
    return entry if rounding == "half_even" else {**entry, "rounding": rounding}


def _output_dtype(params: QParams) -> str:
    """The type whose whole range is in use; the storage type if there is none."""
    signed = not params.dtype.startswith("u")
    for bits in (*range(2, 17), 32):
        if bits == 32 and not signed:
            continue
        if storage_of(bits, signed) == (params.dtype, *params.range):
            return f"{'' if signed else 'u'}int{bits}"
    return params.dtype


def _whole(params: QParams) -> tuple[int, int]:
    signed = not params.dtype.startswith("u")
    return storage_of(int(params.dtype.removeprefix("u").removeprefix("int")), signed)[1:]
