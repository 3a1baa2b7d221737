"""Folds batch normalization into the convolution or matrix product before it.

Before:                                        After:
    w = qnn.dequantize(wq, s, z)                   w = qnn.dequantize(wq, s * |a|, z)
    c = conv2d(x, w)                               c = conv2d(x, w)
    y = batch_norm(c, gamma, beta, mean, var)      y = c + b

with a = gamma / sqrt(var + epsilon) and b = beta - mean * a, in float64. A quantized weight keeps
its integers, so the numbers that training saw are kept: only the scale per channel changes.
Where a channel's a is negative its integers are mirrored; the weight then needs room for that.
Where it is zero they all become the zero point.

A batch norm that follows nothing foldable becomes y = x * a + b, which folding understands too; so
does one that the caller wants in float (see keep_float).
Kept on purpose: a batch norm whose parameters are computed at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    TupleGetItem,
    Var,
    add_notes,
    array_of,
    attrs_of,
    const,
    dtype_of,
    is_const,
    op_name,
    relax,
    rewrite,
    shape_of,
    source_of,
    static_shape,
    with_source,
)
from tvm_qat.marks import kept_in_float
from tvm_qat.passes.match import Uses, channel_vector, definition
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qnn.arithmetic import spread
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams

Array = npt.NDArray[np.float64]


def fold_batch_norm(mod: IRModule) -> IRModule:
    notes: list[dict[str, str]] = []
    kept = kept_in_float(mod)

    def make_visit(func: Function) -> Any:
        uses = Uses(func)

        def visit(builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
            uses.see(var, value)
            return _visit(builder, value, uses, notes, kept)

        return visit

    return add_notes(rewrite(mod, make_visit), notes)


def _visit(
    builder: BlockBuilder, value: Expr, uses: Uses, notes: list[dict[str, str]], kept: frozenset[str]
) -> Expr | None:
    if not isinstance(value, TupleGetItem) or value.index != 0:
        return None
    call = definition(builder, value.tuple_value)
    if op_name(call) != "relax.nn.batch_norm":
        return None
    values = [_real(builder, arg) for arg in call.args[1:]]
    if any(value is None for value in values):
        return None
    factor, offset = _affine(call, values)
    data, axis, rank = call.args[0], attrs_of(call)["axis"], len(shape_of(call.args[0]) or ())
    axis = axis % rank
    alone = source_of(call) in kept
    scaled = None if alone else _scaled_producer(builder, data, factor, axis, rank, uses)
    dtype = dtype_of(data)
    if scaled is None:
        scaled = relax.op.multiply(data, const(spread(factor, axis, rank), dtype))
    else:
        notes.append({"kind": "batch_norm_folded", "node": source_of(call) or "", "text": op_name(call)})
    bound = builder.emit(with_source(scaled, source_of(call)))
    return relax.op.add(bound, const(spread(offset, axis, rank), dtype))


def _affine(call: Expr, values: Sequence[Any]) -> tuple[Array, Array]:
    """(a, b) of y = x * a + b, float64; values: of the four parameters."""
    gamma, beta, mean, variance = values
    attrs = attrs_of(call)
    factor = 1 / np.sqrt(variance + attrs["epsilon"]) * (gamma if attrs["scale"] else 1.0)
    return factor, (beta if attrs["center"] else 0.0) - mean * factor


def _scaled_producer(
    builder: BlockBuilder, data: Expr, factor: Array, axis: int, rank: int, uses: Uses
) -> Expr | None:
    """`data` times factor along axis, by scaling the weight (and bias) it was made of."""
    if not uses.once(data):
        return None
    made = definition(builder, data)
    if op_name(made) == "relax.add":
        return _scaled_bias(builder, made, factor, axis, rank, uses)
    weight_axis = _weight_axis(made)
    if weight_axis is None or _channel_axis(made, rank) != axis:
        return None
    weight = _scaled_weight(builder, made.args[1], factor, weight_axis)
    if weight is None:
        return None
    bound = builder.emit(weight) if isinstance(weight, Call) else weight
    return Call(made.op, [made.args[0], bound], made.attrs, made.ty_args, span=made.span)


def _scaled_bias(
    builder: BlockBuilder, made: Expr, factor: Array, axis: int, rank: int, uses: Uses
) -> Expr | None:
    values = _real(builder, made.args[1])
    bias = channel_vector(values, axis, rank) if values is not None and values.ndim <= rank else None
    inner = None if bias is None else _scaled_producer(builder, made.args[0], factor, axis, rank, uses)
    if inner is None or bias is None:
        return None
    scaled = const(spread(bias * factor, axis, rank), dtype_of(made))
    return relax.op.add(builder.emit(with_source(inner, source_of(made))), scaled)


def _real(builder: BlockBuilder, expr: Expr) -> Array | None:
    """The values of a constant, quantized or reshaped on the way; None if it is no constant."""
    made = definition(builder, expr)
    if is_const(made):
        return array_of(made).astype(np.float64)
    shape = static_shape(made) if isinstance(made, Call) else None
    inner = _real(builder, made.args[0]) if op_name(made) == "relax.reshape" and shape is not None else None
    if inner is not None:
        return inner.reshape(shape)
    params = params_of(made, "input") if op_name(made) == "qnn.dequantize" else None
    if params is None or (integers := _integers(builder, made.args[0])) is None:
        return None
    return arithmetic.dequantize(integers, params).astype(np.float64)


def _weight_axis(made: Expr) -> int | None:
    """The output-channel axis of the weight of an operator that can take the factor."""
    name, attrs = op_name(made), attrs_of(made) if isinstance(made, Call) else {}
    if name in ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d"):
        return int(attrs["kernel_layout"].index("O"))
    if name == "relax.nn.conv2d_transpose" and attrs["groups"] == 1:
        return int(attrs["kernel_layout"].index("O"))
    if name == "relax.matmul" and len(shape_of(made.args[1]) or ()) == 2:
        return 1
    return None


def _channel_axis(made: Expr, rank: int) -> int:
    return int(attrs_of(made)["data_layout"].index("C")) if op_name(made) != "relax.matmul" else rank - 1


def _scaled_weight(builder: BlockBuilder, weight: Expr, factor: Array, axis: int) -> Expr | None:
    """weight * factor along axis, as a new weight expression; None if it cannot be scaled exactly."""
    made = definition(builder, weight)
    if is_const(made):
        values = array_of(made)
        return const((values * spread(factor, axis, values.ndim)).astype(values.dtype))
    if op_name(made) != "qnn.dequantize":
        return None
    params, integers = params_of(made, "input"), _integers(builder, made.args[0])
    if params is None or integers is None or params.axis not in (None, axis):
        return None
    mirrored = _mirrored(integers, params, factor, axis)
    if mirrored is None:
        return None
    scale = np.broadcast_to(params.scale, factor.shape) * np.where(factor == 0, 1, np.abs(factor))
    scaled = params.with_(scale=scale.astype(np.float32), axis=axis)
    return with_source(build.dequantize(const(mirrored), scaled, dtype_of(made)), source_of(made))


def _integers(builder: BlockBuilder, expr: Expr) -> npt.NDArray[Any] | None:
    """A constant of integers, quantized at compile time if it is float until here."""
    made = definition(builder, expr)
    if is_const(made):
        return array_of(made)
    if op_name(made) == "qnn.quantize" and is_const(definition(builder, made.args[0])):
        params = params_of(made, "output")
        if params is not None:
            data = array_of(definition(builder, made.args[0]))
            return arithmetic.quantize(data, params, str(made.attrs["rounding"]))
    return None


def _mirrored(q: npt.NDArray[Any], params: QParams, factor: Array, axis: int) -> npt.NDArray[Any] | None:
    """q reflected about its zero point where factor is negative, and set to it where factor is zero.

    None if that leaves its dtype.
    """
    zero_point = spread(params.zero_point, params.axis, q.ndim).astype(np.int64)
    sign = spread(np.sign(factor).astype(np.int64), axis, q.ndim)
    mirrored = zero_point + sign * (q - zero_point)
    info = np.iinfo(q.dtype)
    return mirrored.astype(q.dtype) if info.min <= mirrored.min() and mirrored.max() <= info.max else None
