"""What each operator does with a channels-last operand; None leaves the operator as it is.

A rule gets (walk, call, operands), operands being expressions or Laid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.ir import (
    Call,
    Expr,
    Tuple,
    array_of,
    attrs_of,
    const,
    is_const,
    make_attrs,
    op_name,
    relax,
    shape_of,
)
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold.functions import BINARY, UNARY
from tvm_qat.passes.layout.values import Laid, laid, new_axis, permuted, to_first, to_last
from tvm_qat.qnn.table import OPS

Rule = Callable[[Walk, Expr, list[Any]], Any]
_AXIS_ATTRS = ("input_axis", "output_axis", "lhs_axis", "rhs_axis")


def _with(call: Expr, operands: list[Any], **changes: Any) -> Expr:
    """The call with other operands and some attributes of the dialect changed."""
    return Call(call.op, operands, make_attrs(**(attrs_of(call) | changes)))


def _moved_axes(call: Expr, rank: int) -> dict[str, int]:
    attrs = attrs_of(call)
    return {name: new_axis(attrs[name], rank) for name in _AXIS_ATTRS if name in attrs}


def conv(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    """Any convolution written channels-first; the weight is transposed at compile time."""
    attrs = attrs_of(call)
    if attrs["data_layout"][1] != "C":
        return None
    rank = len(attrs["data_layout"])
    spatial = attrs["data_layout"][2:]
    transposed = op_name(call) == "qnn.conv2d_transpose"
    target = f"I{spatial}O" if transposed else f"O{spatial}I"
    axes = [attrs["kernel_layout"].index(axis) for axis in target]
    weight = walk.settle(operands[1])
    weight = (
        const(np.ascontiguousarray(array_of(weight).transpose(axes)))
        if is_const(weight)
        else walk.emit(relax.op.permute_dims(weight, axes))
    )
    data = laid(walk, operands[0], rank)
    rest = [walk.settle(o) for o in operands[2:]]
    layouts = {"data_layout": f"N{spatial}C", "kernel_layout": target}
    return Laid(walk.emit(_with(call, [data, weight, *rest], **layouts)))


def qnn_pool(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data, layout = operands[0], attrs_of(call)["layout"]
    if not isinstance(data, Laid) or layout[1] != "C":
        return None
    return Laid(walk.emit(_with(call, [data.expr, *operands[1:]], layout=f"N{layout[2:]}C")))


def max_pool(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data, attrs = operands[0], attrs_of(call)
    if not isinstance(data, Laid) or attrs["layout"][1] != "C":
        return None
    pool = getattr(relax.op.nn, op_name(call).rpartition(".")[2])
    names = ("pool_size", "strides", "padding", "dilation", "ceil_mode", "count_include_pad")
    layout = f"N{attrs['layout'][2:]}C"
    return Laid(walk.emit(pool(data.expr, layout=layout, **{n: attrs[n] for n in names})))


def qnn_mean(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Kept dimensions stay channels-last; if all spatial ones go, [N, C] is the same both ways."""
    data = operands[0]
    if not isinstance(data, Laid):
        return None
    attrs = attrs_of(call)
    axes = sorted(new_axis(a, data.rank) for a in attrs["axis"])
    reduced = _with(call, [data.expr, *operands[1:]], axis=axes)
    if attrs["keepdims"]:
        return Laid(walk.emit(reduced))
    return walk.emit(reduced) if axes == list(range(1, data.rank - 1)) else None


def qnn_softmax(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data = operands[0]
    if not isinstance(data, Laid):
        return None
    axis = new_axis(attrs_of(call)["axis"], data.rank)
    return Laid(walk.emit(_with(call, [data.expr, *operands[1:]], axis=axis)))


def qnn_unary(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    """One tensor in, one of the same shape out; parameters per channel follow their axis."""
    data = operands[0]
    if not isinstance(data, Laid):
        return None
    return Laid(walk.emit(_with(call, [data.expr, *operands[1:]], **_moved_axes(call, data.rank))))


def float_unary(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data = operands[0]
    if not isinstance(data, Laid):
        return None
    return Laid(walk.emit(Call(call.op, [data.expr, *call.args[1:]], call.attrs, call.ty_args)))


def binary(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    """Two tensors of one rank, or a tensor and a constant that broadcasts into it."""
    ranks = {o.rank for o in operands[:2] if isinstance(o, Laid)}
    if len(ranks) != 1:
        return None
    rank = ranks.pop()
    for operand in operands[:2]:
        known = isinstance(operand, Laid) or len(shape_of(operand) or ()) == rank
        if not known and not (is_const(operand) and len(shape_of(operand) or ()) < rank):
            return None
    pair = [laid(walk, operand, rank) for operand in operands[:2]]
    if op_name(call) in OPS:
        return Laid(walk.emit(_with(call, [*pair, *operands[2:]], **_moved_axes(call, rank))))
    return Laid(walk.emit(Call(call.op, pair, call.attrs, call.ty_args)))


def concat(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    parts = operands[0]
    ranks = {part.rank for part in parts if isinstance(part, Laid)}
    if len(ranks) != 1:
        return None
    rank = ranks.pop()
    joined = Tuple([laid(walk, part, rank) for part in parts])
    axis = new_axis(attrs_of(call)["axis"], rank)
    if op_name(call) == "relax.concat":
        return Laid(walk.emit(relax.op.concat(joined, axis=axis)))
    return Laid(walk.emit(_with(call, [joined, *map(walk.settle, operands[1:])], axis=axis)))


def split(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    data, attrs = operands[0], attrs_of(call)
    if not isinstance(data, Laid):
        return None
    axis = new_axis(attrs["axis"], data.rank)
    parts = walk.emit(relax.op.split(data.expr, attrs["indices_or_sections"], axis))
    return tuple(Laid(walk.emit(parts[i])) for i in range(len(parts.ty.fields)))


def pad(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data, attrs = operands[0], attrs_of(call)
    if not isinstance(data, Laid):
        return None
    width = np.asarray(attrs["pad_width"]).reshape(-1, 2)[to_last(data.rank)].reshape(-1).tolist()
    return Laid(walk.emit(relax.op.nn.pad(data.expr, width, attrs["pad_mode"], attrs["pad_value"])))


def permute(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Two transposes become one, or none."""
    data = operands[0]
    if not isinstance(data, Laid):
        return None
    axes = attrs_of(call)["axes"]
    wanted = list(reversed(range(data.rank))) if axes is None else [a % data.rank for a in axes]
    composed = [to_first(data.rank)[a] for a in wanted]
    if composed == sorted(composed):
        return data.expr
    return Laid(data.expr) if wanted == list(range(data.rank)) else walk.emit(permuted(data.expr, composed))


def resize(walk: Walk, call: Expr, operands: list[Any]) -> Laid | None:
    data, attrs = operands[0], attrs_of(call)
    if not isinstance(data, Laid) or attrs["layout"] != "NCHW":
        return None
    names = [n for n in attrs if n != "layout"]
    arguments = {n: attrs[n] for n in names}
    return Laid(walk.emit(relax.op.image.resize2d(data.expr, call.args[1], layout="NHWC", **arguments)))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("qnn.conv1d", "qnn.conv2d", "qnn.conv3d", "qnn.conv2d_transpose"), conv),
    **dict.fromkeys((f"relax.nn.max_pool{n}d" for n in (1, 2, 3)), max_pool),
    **dict.fromkeys(("qnn.quantize", "qnn.dequantize", "qnn.requantize", "qnn.lut"), qnn_unary),
    **dict.fromkeys((f"qnn.{n.rpartition('.')[2]}" for n in BINARY if "power" not in n), binary),
    **dict.fromkeys((*BINARY, "relax.left_shift"), binary),
    **dict.fromkeys(
        (*UNARY, "relax.nn.relu", "relax.nn.leakyrelu", "relax.clip", "relax.astype"), float_unary
    ),
    "qnn.avg_pool": qnn_pool,
    "qnn.mean": qnn_mean,
    "qnn.softmax": qnn_softmax,
    "qnn.concatenate": concat,
    "relax.concat": concat,
    "relax.split": split,
    "relax.nn.pad": pad,
    "relax.permute_dims": permute,
    "relax.image.resize2d": resize,
}
