"""Rules for the operators that multiply and accumulate, and for the bias that joins them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import Expr, array_of, attrs_of, const, dtype_of, is_const, op_name, relax, shape_of
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold import litert
from tvm_qat.passes.fold.run_time import at_run_time
from tvm_qat.passes.fold.values import Carried, Pending, Skip, Unrounded, plain
from tvm_qat.passes.match import channel_vector
from tvm_qat.qnn import build
from tvm_qat.qnn.arithmetic import spread
from tvm_qat.qparams import STORAGE_RANGE, QParams

INT32_MAX = 2**31 - 1
GRIDS = "grids"
"""Kind of the note with two grids, in JSON, that the integer operator does not say: of a product's operands,
or of a table's operand and result."""


def grids_note(first: QParams, second: QParams) -> str:
    return json.dumps([first.to_json(), second.to_json()])


_WHOLE = 2.0**-10
"""Of a step of a sum: what a bias may be off that counts as a whole number of them."""

_MOST_BITS = 12
"""By which a sum is made finer for its bias at most: float32 itself rounds a sum of 2^12 steps by more."""


def conv(walk: Walk, call: Expr, operands: list[Any]) -> Carried | Skip:
    """conv1d, conv2d, conv3d of two quantized tensors -> int32, scale s_x * s_w per channel."""
    attrs = attrs_of(call)
    checked = _operand_pair(walk, operands, weight_axis=attrs["kernel_layout"].index("O"))
    if isinstance(checked, Skip):
        return checked
    x, w = checked
    q = build.conv(
        x.q, w.q, x.params.zero_point, w.params.zero_point, strides=attrs["strides"],
        padding=attrs["padding"], dilation=attrs["dilation"], groups=attrs["groups"],
        data_layout=attrs["data_layout"], kernel_layout=attrs["kernel_layout"],
    )  # fmt: skip
    taps = [i for i, axis in enumerate(attrs["kernel_layout"]) if axis != "O"]
    return _accumulator(walk, call, q, (x, w), attrs["data_layout"].index("C"), taps)


def conv2d_transpose(walk: Walk, call: Expr, operands: list[Any]) -> Carried | Skip:
    """Per-channel weights along O; with several groups O counts within a group, so per tensor only."""
    attrs = attrs_of(call)
    layout = attrs["kernel_layout"]
    checked = _operand_pair(walk, operands, weight_axis=layout.index("O"))
    if isinstance(checked, Skip):
        return checked
    x, w = checked
    if w.params.per_channel and attrs["groups"] > 1:
        return Skip("per-channel", "its weight is quantized per channel, but it has several groups")
    q = build.conv2d_transpose(
        x.q, w.q, x.params.zero_point, w.params.zero_point, strides=attrs["strides"],
        padding=attrs["padding"], output_padding=attrs["output_padding"],
        dilation=attrs["dilation"], groups=attrs["groups"], data_layout=attrs["data_layout"],
        kernel_layout=layout,
    )  # fmt: skip
    taps = [i for i, axis in enumerate(layout) if axis != "O"]
    return _accumulator(walk, call, q, (x, w), attrs["data_layout"].index("C"), taps)


def matmul(walk: Walk, call: Expr, operands: list[Any]) -> Carried | Skip:
    """A constant 2-D right side becomes qnn.dense, anything else qnn.batch_matmul."""
    left, right = shape_of(call.args[0]), shape_of(call.args[1])
    if left is None or right is None or min(len(left), len(right)) < 2:
        return Skip("no-rule", "a matrix product with a vector has no integer rule")
    last = len(right) - 1
    checked = _operand_pair(walk, operands, weight_axis=last)
    if isinstance(checked, Skip):
        return checked
    x, w = checked
    if is_const(w.q) and len(right) == 2:
        params = w.params.with_(axis=0) if w.params.per_channel else w.params
        weight = replace(w, q=const(np.ascontiguousarray(array_of(w.q).T)), params=params)
        q = build.dense(x.q, weight.q, x.params.zero_point, w.params.zero_point)
        return _accumulator(walk, call, q, (x, weight), len(left) - 1, [1])
    if w.params.per_channel:
        return Skip("per-channel", "its right side is quantized per channel, but is no constant matrix")
    rank = max(len(left), len(right))
    q = build.batch_matmul(x.q, w.q, x.params.zero_point, w.params.zero_point)
    return _accumulator(walk, call, q, (x, w), rank - 1, [last - 1])


def _operand_pair(walk: Walk, operands: list[Any], weight_axis: int) -> tuple[Carried, Carried] | Skip:
    """Data and weight with clamps applied, if both are quantized in a way that sums allow."""
    if isinstance(operands[0], Carried):
        operands = [operands[0], _whole(operands[1])]
    pair: list[Carried] = []
    for value, role in zip(operands[:2], ("input", "weight"), strict=True):
        if not isinstance(value, Carried):
            dynamic = None if hasattr(value, "carried") else at_run_time(walk.builder, value, role)
            return dynamic or Skip("not-quantized", f"its {role} is not quantized")
        applied = plain(walk, value)
        if isinstance(applied, Skip):
            return Skip(applied.code, f"its {role} cannot be used: {applied.reason}")
        pair.append(applied)
    x, w = pair
    if x.params.dtype == "int32" or w.params.dtype == "int32":
        return Skip("width", "an operand has 32 bits; quantize it to 8 or 16")
    if x.params.per_channel:
        return Skip("per-channel", "its input is quantized per channel")
    if w.params.axis not in (None, weight_axis):
        return Skip(
            "per-channel", f"its weight is quantized along axis {w.params.axis}, which the sum runs over"
        )
    return x, w


def _whole(value: Any) -> Any:
    """A float constant of whole numbers up to 16 bits lies on a grid of step 1 as it is."""
    if hasattr(value, "carried") or isinstance(value, tuple) or not is_const(value):
        return value
    values = array_of(value)
    if not np.issubdtype(values.dtype, np.floating) or not np.all(np.abs(values) < 1 << 15):
        return value
    dtype = "int8" if np.all(np.abs(values) < 1 << 7) else "int16"
    if np.any(values != np.rint(values)):
        return value
    return Carried(const(values.astype(dtype)), QParams(np.float64(1), dtype=dtype))


def _accumulator(
    walk: Walk, call: Expr, q: Expr, pair: tuple[Carried, Carried], axis: int, taps: list[int]
) -> Carried | Skip:
    """The int32 result `q` of the float operator `call`, unless it could overflow.

    taps : the axes of the weight that the sum runs over.
    """
    x, w = pair
    bound = _greatest_sum(x, w, taps, walk)
    if bound is None or bound > INT32_MAX:
        return Skip("overflow", "its sum could overflow 32 bits; quantize with fewer bits")
    walk.note(GRIDS, "", grids_note(x.params, w.params))
    scale = litert.product_scale(x, w, op_name(q))
    params = QParams(scale, dtype="int32", axis=axis if scale.ndim else None)
    exact = litert.of_sum(op_name(q), x.params.dtype)
    return Carried(
        walk.emit(q), params, bound=bound, exact=exact, source=walk.source, out_dtype=dtype_of(call)
    )


def _greatest_sum(x: Carried, w: Carried, taps: list[int], walk: Walk) -> int | None:
    """Greatest absolute value the accumulator can take, for any input; None if unknown."""
    reach = greatest(x.params)
    if is_const(w.q):
        zero_point = spread(w.params.zero_point, w.params.axis, len(shape_of(w.q) or ()))
        weights = np.abs(array_of(w.q).astype(np.int64) - zero_point)
        return int(weights.sum(axis=tuple(taps)).max()) * reach
    shape = shape_of(w.q) or ()
    sizes = [shape[i] for i in taps]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return int(np.prod(sizes)) * greatest(w.params) * reach


def greatest(params: QParams) -> int:
    """Greatest |q - zero_point| that the storage dtype can hold."""
    low, high = STORAGE_RANGE[params.dtype]
    zero_point = params.zero_point.astype(np.int64)
    return int(max((high - zero_point).max(), (zero_point - low).max()))


def bias(walk: Walk, call: Expr, value: Carried, other: Any, fine: bool = True) -> Carried | None:
    """accumulator + constant: the constant joins in int32.

    fine : a bias that lies between two steps of the sum is added on a grid 2^k times as fine, to which
    the sum is shifted; otherwise it is rounded to whole steps. Bits that the sum cannot reach are free
    for that, so that the bias is about as exact as a float32.

    None if this is no such addition, or if the sum could leave int32: then it is a `qnn.add`.
    Where the sum is needed in float, nothing is rounded.
    """
    real = constant_value(other)
    rank = len(value.shape or ())
    if value.params.dtype != "int32" or value.bound is None or real is None or value.clamped:
        return None
    axis = value.params.axis if value.params.axis is not None else _only_axis(real, rank)
    vector = channel_vector(real, axis, rank) if real.ndim <= rank else None
    if vector is None or (vector.ndim and vector.size != (value.shape or ())[axis]):
        return None
    steps = vector / value.params.scale
    bound = value.bound + float(np.abs(np.rint(steps)).max(initial=0))
    if not bound <= INT32_MAX:
        return None
    bits = _spare_bits(bound) if fine and not _are_whole(steps, other, value.params) else 0
    q = walk.emit(relax.op.left_shift(value.q, const(bits, "int32"))) if bits else value.q
    added = walk.emit(relax.op.add(q, const(spread(np.rint(steps * 2.0**bits).astype(np.int32), axis, rank))))
    params = value.params.with_(scale=value.params.scale / 2**bits) if bits else value.params
    unrounded = None
    if not np.allclose(np.rint(steps) * value.params.scale, vector, rtol=1e-6, atol=0):
        unrounded = Unrounded(added, params, Pending(call, (value, other), source=walk.source))
    limit = int(bound + 1) << bits if bits else int(bound)
    return replace(value, q=added, params=params, bound=limit, unrounded=unrounded, source=walk.source)


def _are_whole(steps: npt.NDArray[Any], other: Any, sums: QParams) -> bool:
    """Whether a bias lies on the grid of the sum, or was stored on one that only rounding tells from it."""
    if isinstance(other, Carried) and other.params.dtype == "int32":
        own = other.params.scale
        if own.ndim <= sums.scale.ndim and np.allclose(own, sums.scale, rtol=1e-5, atol=0):
            return True
    return bool(np.all(np.abs(steps - np.rint(steps)) <= _WHOLE))


def _spare_bits(bound: float) -> int:
    """How far a sum of at most `bound`, and what rounding a bias may add, can be shifted."""
    return min(_MOST_BITS, 31 - int(bound + 1).bit_length())


def _only_axis(values: npt.NDArray[Any], rank: int) -> int:
    """The one axis along which `values` varies when broadcast to `rank`; the last if there is none."""
    axes = [rank - values.ndim + i for i, size in enumerate(values.shape) if size > 1]
    return axes[0] if len(axes) == 1 else rank - 1


def constant_value(value: Any) -> npt.NDArray[np.float64] | None:
    """The real values of a constant operand, float or dequantized; exact in float64."""
    if isinstance(value, Carried) and is_const(value.q) and not value.clamped:
        q = array_of(value.q)
        zero_point = spread(value.params.zero_point, value.params.axis, q.ndim)
        return np.asarray(
            (q - zero_point.astype(np.int64)) * spread(value.params.scale, value.params.axis, q.ndim)
        )
    if not hasattr(value, "carried") and not isinstance(value, tuple) and is_const(value):
        return array_of(value).astype(np.float64)
    return None


RULES = {
    "relax.nn.conv1d": conv,
    "relax.nn.conv2d": conv,
    "relax.nn.conv3d": conv,
    "relax.nn.conv2d_transpose": conv2d_transpose,
    "relax.matmul": matmul,
}
