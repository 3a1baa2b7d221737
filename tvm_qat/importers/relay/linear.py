"""Sums of products: convolutions and dense layers, on floats and, with zero points, on integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.node import Context, Node, Value, reshaped, shape_or_refuse, spread, transposed
from tvm_qat.ir import Expr, const, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

NARROW = ("int8", "uint8", "int16", "uint16")
_FIRST = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}


def padding_of(node: Node, rank: int) -> list[int]:
    """[begin..., end...] from Relay's short forms: one number, one per axis, or all."""
    pads = node.wholes("padding", [0] * rank)
    full = pads * (2 * rank) if len(pads) == 1 else pads * 2 if len(pads) == rank else pads
    if len(full) != 2 * rank or min(full) < 0:
        raise InputError(f"padding {pads} does not fit {rank} dimensions")
    return full


def steps_of(node: Node, name: str, rank: int) -> list[int]:
    """strides or dilation: positive, one per axis or one for all."""
    steps = node.wholes(name, [1] * rank)
    steps = steps * rank if len(steps) == 1 else steps
    if len(steps) != rank or min(steps) < 1:
        raise InputError(f"{name} {steps} does not fit {rank} dimensions")
    return steps


def layouts_of(node: Node, rank: int, kernel_default: str) -> tuple[str, str]:
    data = node.text("data_layout", _FIRST[rank][0])
    kernel = node.text("kernel_layout", kernel_default)
    out = node.text("out_layout", "") or data
    spatial = _FIRST[rank][0][2:]
    if sorted(data) != sorted("NC" + spatial) or sorted(kernel) != sorted("OI" + spatial) or out != data:
        raise UnsupportedError(f"layouts {data}, {kernel} -> {out} are not supported")
    return data, kernel


def conv(context: Context, node: Node) -> Expr:
    """nn.conv1d, conv2d, conv3d. Integers give int32."""
    return _conv(context, node, 0, 0)


def qnn_conv2d(context: Context, node: Node) -> Expr:
    """data, weight, their zero points, their scales. The scales belong to the requantize after it."""
    return _conv(context, node, *zero_points_of(node))


def zero_points_of(node: Node) -> tuple[Any, Any]:
    x, w = (node.constant(i, "zero point").astype(np.int64) for i in (2, 3))
    if x.size != 1 or (w.size != 1 and w.ndim != 1) or max(map(_greatest, (x, w))) >= 1 << 16:
        raise InputError(f"zero points of shapes {x.shape} and {w.shape}, or too large, do not fit")
    return x.reshape(()).astype(np.int32), (w.reshape(()) if w.size == 1 else w).astype(np.int32)


def _greatest(values: Any) -> int:
    return int(np.abs(values).max(initial=0))


def _conv(context: Context, node: Node, x_zero: Any, w_zero: Any) -> Expr:
    shape = node.shape(0)
    rank = len(shape) - 2
    if rank not in _FIRST or (node.op[-2:] != f"{rank}d"):
        raise InputError(f"data of rank {len(shape)} does not fit {node.op}")
    data_layout, kernel_layout = layouts_of(node, rank, _FIRST[rank][1])
    groups, channels = node.whole("groups", 1), shape[data_layout.index("C")]
    weight = _grouped_weight(context, node.tensor(1), kernel_layout, groups, channels)
    attributes: dict[str, Any] = {
        "strides": steps_of(node, "strides", rank),
        "padding": padding_of(node, rank),
        "dilation": steps_of(node, "dilation", rank),
        "groups": groups,
        "data_layout": data_layout,
        "kernel_layout": kernel_layout,
    }
    if node.is_float(0):
        function = (relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d)[rank - 1]
        return function(node.tensor(0), weight, **attributes)
    check_integers(node)
    return build.conv(node.tensor(0), weight, x_zero, w_zero, **attributes)


def check_integers(node: Node) -> None:
    """Products of integers are summed in int32, nothing else."""
    kinds, out = (node.dtype(0), node.dtype(1)), node.text("out_dtype", "")
    if not all(kind in NARROW for kind in kinds) or out not in ("int32", ""):
        raise UnsupportedError(f"products of {kinds[0]} and {kinds[1]} summed as {out or kinds[0]}")
    if not out and not node.op.startswith("qnn."):
        raise UnsupportedError(f"products of {kinds[0]} summed in {kinds[0]}: out_dtype is not int32")


def _grouped_weight(context: Context, weight: Expr, layout: str, groups: int, channels: Any) -> Expr:
    """A weight whose I counts within a group.

    Relay writes a depthwise weight as channels times multiplier: O is the channel, I the multiplier.
    """
    shape = shape_or_refuse(weight)
    if len(shape) != len(layout) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"a weight of shape {list(shape)} does not fit {layout}")
    outputs, inputs = shape[layout.index("O")], shape[layout.index("I")]
    if groups < 1:
        raise InputError(f"groups is {groups}")
    depthwise = groups == channels and groups > 1 and inputs > 1
    if depthwise and outputs == channels and "OI" in layout:
        sizes = dict(zip(layout, shape, strict=True))
        sizes |= {"O": outputs * inputs, "I": 1}
        return reshaped(context, weight, [sizes[axis] for axis in layout])
    if isinstance(channels, int) and inputs * groups != channels:
        raise InputError(f"{channels} channels do not fit a weight of {inputs} in {groups} groups")
    return weight


def conv2d_transpose(context: Context, node: Node) -> Expr:
    return _conv2d_transpose(context, node, 0, 0)


def qnn_conv2d_transpose(context: Context, node: Node) -> Expr:
    return _conv2d_transpose(context, node, *zero_points_of(node))


def _conv2d_transpose(context: Context, node: Node, x_zero: Any, w_zero: Any) -> Expr:
    """Before TVM 0.9 the axes of the weight were named the other way round; its sizes tell."""
    shape = node.shape(0)
    if len(shape) != 4:
        raise InputError(f"data of rank {len(shape)} does not fit {node.op}")
    data_layout, kernel_layout = layouts_of(node, 2, "IOHW")
    weight, groups = node.tensor(1), node.whole("groups", 1)
    sizes, channels = shape_or_refuse(weight), shape[data_layout.index("C")]
    if len(sizes) != 4 or groups < 1 or not all(isinstance(s, int) for s in (*sizes, channels)):
        raise InputError(f"a weight of shape {list(sizes)} for {channels} channels")
    swapped = kernel_layout.translate(str.maketrans("OI", "IO"))
    if sizes[kernel_layout.index("I")] != channels == sizes[swapped.index("I")]:
        kernel_layout = swapped
    weight = transposed(context, weight, [kernel_layout.index(axis) for axis in "IOHW"])
    extra = node.wholes("output_padding", [0, 0])
    attributes: dict[str, Any] = {
        "strides": steps_of(node, "strides", 2),
        "padding": padding_of(node, 2),
        "output_padding": extra * 2 if len(extra) == 1 else extra,
        "dilation": steps_of(node, "dilation", 2),
        "groups": groups,
    }
    last = data_layout == "NHWC"
    if not last and data_layout != "NCHW":
        raise UnsupportedError(f"layout {data_layout} is not supported")
    data = transposed(context, node.tensor(0), [0, 3, 1, 2]) if last else node.tensor(0)
    if node.is_float(0):
        result = relax.op.nn.conv2d_transpose(data, weight, kernel_layout="IOHW", **attributes)
    else:
        check_integers(node)
        result = build.conv2d_transpose(data, weight, x_zero, w_zero, **attributes)
    return transposed(context, context.write(result), [0, 2, 3, 1]) if last else result


def bias_add(context: Context, node: Node) -> Expr:
    rank = len(node.shape(0))
    if len(node.shape(1)) != 1:
        raise InputError(f"the bias has shape {list(node.shape(1))}")
    axis = node.axis("axis", 1, rank)
    return relax.op.add(node.tensor(0), spread(context, node.tensor(1), axis, rank))


def dense(context: Context, node: Node) -> Expr:
    """data [..., K] times weight [N, K] transposed."""
    return _dense(context, node, node.tensor(1), 0, 0)


def qnn_dense(context: Context, node: Node) -> Expr:
    return _dense(context, node, node.tensor(1), *zero_points_of(node))


def dense_pack(context: Context, node: Node) -> Expr:
    return _dense(context, node, _unpacked(node), 0, 0)


def qnn_dense_pack(context: Context, node: Node) -> Expr:
    return _dense(context, node, _unpacked(node), *zero_points_of(node))


def _dense(context: Context, node: Node, weight: Expr, x_zero: Any, w_zero: Any) -> Expr:
    if len(shape_or_refuse(weight)) != 2 or not node.shape(0):
        raise InputError(f"a weight of shape {list(shape_or_refuse(weight))}")
    if node.is_float(0):
        return relax.op.matmul(node.tensor(0), transposed(context, weight, [1, 0]))
    check_integers(node)
    return build.dense(node.tensor(0), weight, x_zero, w_zero)


def _unpacked(node: Node) -> Expr:
    """[N, K] from blocks of N, and of K within those: `NC16n`, `NC32n4c`, `NC`."""
    weight = node.constant(1, "packed weight")
    layout = node.text("weight_layout", "") or node.text("kernel_layout", "NC")
    n, c, rest = 1, 1, layout[2:]
    for block in ("n", "c"):
        digits, found, after = rest.partition(block)
        if found:
            size = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0
            n, c, rest = (size, c, after) if block == "n" else (n, size, after)
    shape = tuple(size for size, kept in ((n, n > 1), (c, c > 1)) if kept)
    if layout[:2] not in ("NC", "NK") or rest or min(n, c) < 1 or weight.shape[2:] != shape:
        raise UnsupportedError(f"a weight of shape {list(weight.shape)} in layout {layout!r}")
    full = weight.reshape(*weight.shape[:2], n, c).transpose(0, 2, 1, 3)
    return const(np.ascontiguousarray(full).reshape(weight.shape[0] * n, weight.shape[1] * c))


def batch_matmul(context: Context, node: Node) -> Expr:
    """x [B, M, K], y [B, N, K] by default of the old versions; transposed as the attributes say."""
    x, y = _matrices(context, node, node.flag("transpose_b", False))
    if node.is_float(0):
        return relax.op.matmul(x, y)
    check_integers(node)
    return build.batch_matmul(x, y, 0, 0)


def qnn_batch_matmul(context: Context, node: Node) -> Expr:
    x, y = _matrices(context, node, node.flag("transpose_b", True))
    check_integers(node)
    zero_points = zero_points_of(node)
    if any(np.ndim(zero) for zero in zero_points):
        raise UnsupportedError("zero points per channel are not supported here")
    return build.batch_matmul(x, y, *zero_points)


def _matrices(context: Context, node: Node, transpose_b: bool) -> tuple[Expr, Expr]:
    """Both operands as [B, M, K] and [B, K, N].

    Texts of TVM before 0.8 have no attribute transpose_b, and mean True: where only that fits the
    sizes, it is taken.
    """
    a, b = node.shape(0), node.shape(1)
    if len(a) != 3 or len(b) != 3:
        raise InputError(f"operands of rank {len(a)} and {len(b)}, not 3")
    transpose_a = node.flag("transpose_a", False)
    inner = a[1] if transpose_a else a[2]
    known = all(isinstance(size, int) for size in (inner, b[1], b[2]))
    if known and "transpose_b" not in node.attrs and inner not in (b[2] if transpose_b else b[1],):
        transpose_b = not transpose_b
    x = transposed(context, node.tensor(0), [0, 2, 1]) if transpose_a else node.tensor(0)
    return x, transposed(context, node.tensor(1), [0, 2, 1]) if transpose_b else node.tensor(1)


def fixed_point_multiply(_context: Context, node: Node) -> Value:
    """x * multiplier * 2^(shift - 31) with one rounding, half up: a requantize between int32 grids."""
    multiplier, shift = node.whole("multiplier", 0), node.whole("shift", 0)
    if node.dtype(0) != "int32" or multiplier <= 0 or not -31 < shift <= 30:
        raise UnsupportedError(f"multiplier {multiplier} and shift {shift} on {node.dtype(0)}")
    source = QParams(np.asarray(math.ldexp(multiplier, shift - 31)), dtype="int32")
    return build.requantize(node.tensor(0), source, QParams(np.asarray(1.0), dtype="int32"), "tflite_single")
