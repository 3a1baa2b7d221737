"""Which sums of products an instruction set can run, and which it shall."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.ir import array_of, dtype_of, is_const
from tvm_qat.kernels import packing
from tvm_qat.kernels.builder import Symbols
from tvm_qat.kernels.depthwise_layout import CHUNK
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_plan import spec_of
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import product
from tvm_qat.kernels.runs import step_starts
from tvm_qat.qnn.arithmetic import Array


def suits_dot(fused: Fused, isa: DotProduct) -> bool:
    """Whether the instruction can run it: constant 8-bit weights, enough channels, a known zero point."""
    call = fused.anchor
    dtype = dtype_of(call.args[0])
    if dtype not in ("uint8", "int8") or not is_const(call.args[2]):
        return False
    spec, lead = spec_of(fused, Symbols())
    if lead:
        return _suits_batched(call, spec, isa)
    if not (is_const(call.args[1]) and is_const(call.args[3])):
        return False
    if spec.depthwise:
        known = all(isinstance(size, int) for size in (spec.axes[2].size, spec.axes[2].out))
        enough = isa.adds_bytes_by_channel and spec.channels_last and spec.groups >= CHUNK and known
    else:
        enough = spec.run >= isa.depth and _takes_fewer_instructions(spec, isa, dtype)
    if not enough:
        return False
    weights = packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3]))
    limits = np.iinfo(isa.weight)
    fits = bool(limits.min <= weights.min(initial=0) and weights.max(initial=0) <= limits.max)
    return fits and _halves_fit(spec, weights, isa)


def _suits_batched(call: Any, spec: LinearSpec, isa: DotProduct) -> bool:
    """Whether a right side known at run time can be packed: int8, symmetric, of known size."""
    symmetric = is_const(call.args[3]) and not np.any(array_of(call.args[3]))
    known = isinstance(spec.inner, int) and isinstance(spec.outer, int)
    bytes_ = isa.adds_bytes_by_channel and dtype_of(call.args[1]) == "int8"
    return bytes_ and symmetric and known and spec.inner >= isa.depth


def _halves_fit(spec: LinearSpec, weights: Array, isa: DotProduct) -> bool:
    """Whether no two products that are added in 16 bits leave them, whatever the activations are."""
    least = int(np.iinfo(np.int8).min)
    if not isa.adds_halves or weights.min(initial=0) > least:
        return True
    lowest = packing.split_steps(spec, weights, isa) == least
    first, second = lowest[..., : isa.depth // 2], lowest[..., isa.depth // 2 :]
    return not np.any(first & second)


_COPY = 4
"""Instructions that copy 16 activations: load, flip, store, and a share of the loop."""


def _takes_fewer_instructions(spec: LinearSpec, isa: DotProduct, dtype: str) -> bool:
    """Whether none of `isa.instead` takes fewer, a copy of the activations with flipped signs included."""
    return isa.instead is None or _instructions(spec, isa, dtype) < _instructions(spec, isa.instead, dtype)


def _instructions(spec: LinearSpec, isa: DotProduct, dtype: str) -> float:
    """Of one sum, in a tile of full size."""
    taps = product(spec.kernel[:2]) if spec.merges_columns else product(spec.kernel)
    strides = product([axis.stride for axis in spec.axes])
    copy = _COPY / 16 * spec.inner * strides / spec.outer if isa.flips(dtype) else 0.0
    return float(taps * len(step_starts(isa, spec.run)) * isa.per_step + isa.per_sum + copy)
