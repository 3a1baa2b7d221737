"""Builders of the dialect's calls: the only place that knows their operand order.

They take QParams where parameters are known, and return a call that is not yet bound. The
source node's name is attached by the caller (`ir.with_source`, or `ir.rewrite` by itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_qat.fixed_point import SUM_ROUNDINGS
from tvm_qat.ir import Call, Expr, Tuple, const, make_attrs, tvm
from tvm_qat.qnn import register  # noqa: F401  (the operators must exist before they are called)
from tvm_qat.qnn.arithmetic import QUANTIZE_FORMULAS
from tvm_qat.qnn.params import attributes_of, operands_of
from tvm_qat.qparams import QParams


def _call(name: str, args: Sequence[Expr], **attrs: Any) -> Expr:
    return Call(tvm.ir.Op.get(name), list(args), make_attrs(**attrs))


def _zero_point(value: Any) -> Expr:
    """A zero point operand: an int32 constant, or an expression computed at run time."""
    return value if isinstance(value, tvm.ir.Expr) else const(np.asarray(value), "int32")


def quantize(data: Expr, output: QParams, rounding: str = "half_even") -> Expr:
    """data: float, any shape -> output.dtype; `rounding` is one of QUANTIZE_FORMULAS."""
    assert rounding in QUANTIZE_FORMULAS, rounding
    attrs = attributes_of("output", output)
    return _call("qnn.quantize", [data, *operands_of(output)], rounding=rounding, **attrs)


def quantize_at_run_time(
    data: Expr, scale: Expr, zero_point: Expr, dtype: str, qmin: int, qmax: int, axis: int | None = None
) -> Expr:
    """The same with scale (float32) and zero point (int32) computed by the graph; (n,) along `axis`."""
    attrs = {"out_dtype": dtype, "qmin": qmin, "qmax": qmax, "rounding": "half_even"}
    attrs |= {} if axis is None else {"output_axis": axis}
    return _call("qnn.quantize", [data, scale, zero_point], **attrs)


def dequantize(data: Expr, source: QParams, out_dtype: str = "float32") -> Expr:
    """data: integers -> float: (data - zero_point) * scale."""
    attrs = attributes_of("input", source)
    return _call("qnn.dequantize", [data, *operands_of(source)], out_dtype=out_dtype, **attrs)


def dequantize_at_run_time(
    data: Expr, scale: Expr, zero_point: Expr, axis: int | None = None, out_dtype: str = "float32"
) -> Expr:
    """The same with parameters computed by the graph: scalars, or (n,) along `axis`."""
    attrs: dict[str, Any] = {"out_dtype": out_dtype} | ({} if axis is None else {"input_axis": axis})
    return _call("qnn.dequantize", [data, scale, zero_point], **attrs)


def requantize(data: Expr, source: QParams, output: QParams, rounding: str = "half_even") -> Expr:
    """data: integers on `source` -> integers on `output`; rounding: SUM_ROUNDINGS."""
    assert rounding in SUM_ROUNDINGS, rounding
    attrs = attributes_of("input", source) | attributes_of("output", output)
    args = [data, *operands_of(source), *operands_of(output)]
    return _call("qnn.requantize", args, rounding=rounding, **attrs)


def fake_quantize(data: Expr, output: QParams, rounding: str = "half_even") -> Expr:
    """Float in, float out: dequantize(quantize(data)). The shape and dtype of data are kept."""
    assert rounding in QUANTIZE_FORMULAS, rounding
    attrs = attributes_of("output", output)
    return _call("qnn.fake_quantize", [data, *operands_of(output)], rounding=rounding, **attrs)


def fake_quantize_range(
    data: Expr, minimum: Any, maximum: Any, *, bits: int = 8, narrow_range: bool = False,
    signed: bool = False, axis: int | None = None,
) -> Expr:  # fmt: skip
    """Float in, float out, by range [minimum, maximum] (scalars, or (n,) along `axis`).

    The range is nudged so that zero lies on the grid (TensorFlow's FakeQuantWithMinMaxVars).
    """
    attrs = {"bits": bits, "narrow_range": int(narrow_range), "signed": int(signed)}
    attrs |= {} if axis is None else {"output_axis": axis}
    args = [data, const(minimum, "float32"), const(maximum, "float32")]
    return _call("qnn.fake_quantize_range", args, **attrs)


def conv(
    data: Expr, weight: Expr, input_zero_point: Any = 0, kernel_zero_point: Any = 0, *,
    strides: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int = 1,
    data_layout: str = "NCHW", kernel_layout: str = "OIHW",
) -> Expr:  # fmt: skip
    """qnn.conv1d, conv2d or conv3d, by the rank that the layout names. int32.

    Padding counts as the real value zero, that is, as input_zero_point. Zero points are
    scalars; kernel_zero_point may have one per output channel.
    """
    name = f"qnn.conv{len(data_layout) - 2}d"
    args = [data, weight, _zero_point(input_zero_point), _zero_point(kernel_zero_point)]
    return _call(
        name, args, strides=list(strides), padding=list(padding), dilation=list(dilation),
        groups=groups, data_layout=data_layout, kernel_layout=kernel_layout,
    )  # fmt: skip


def conv2d_transpose(
    data: Expr, weight: Expr, input_zero_point: Any = 0, kernel_zero_point: Any = 0, *,
    strides: Sequence[int], padding: Sequence[int], output_padding: Sequence[int],
    dilation: Sequence[int], groups: int = 1, data_layout: str = "NCHW", kernel_layout: str = "IOHW",
) -> Expr:  # fmt: skip
    """Transposed convolution; int32. Weight: I input channels, O output channels of one group."""
    args = [data, weight, _zero_point(input_zero_point), _zero_point(kernel_zero_point)]
    return _call(
        "qnn.conv2d_transpose", args, strides=list(strides), padding=list(padding),
        output_padding=list(output_padding), dilation=list(dilation), groups=groups,
        data_layout=data_layout, kernel_layout=kernel_layout,
    )  # fmt: skip


def dense(data: Expr, weight: Expr, input_zero_point: Any = 0, kernel_zero_point: Any = 0) -> Expr:
    """data [..., K] times weight [N, K] transposed -> int32 [..., N]; kernel zero point () or (N,)."""
    return _call("qnn.dense", [data, weight, _zero_point(input_zero_point), _zero_point(kernel_zero_point)])


def batch_matmul(x: Expr, y: Expr, x_zero_point: Any = 0, y_zero_point: Any = 0) -> Expr:
    """x [..., M, K] times y [..., K, N] -> int32; leading dimensions broadcast; scalar zero points."""
    return _call("qnn.batch_matmul", [x, y, _zero_point(x_zero_point), _zero_point(y_zero_point)])


def elementwise(
    name: str, lhs: Expr, rhs: Expr, x: QParams, y: QParams, output: QParams, rounding: str = "half_even"
) -> Expr:
    """qnn.add, subtract, multiply, divide, minimum or maximum (`name`), with broadcasting.

    rounding : half_even, or where qnn.litert has the operator also tflite; add and subtract: ROUNDINGS.
    """
    args = [lhs, rhs, *operands_of(x), *operands_of(y), *operands_of(output)]
    attrs = attributes_of("lhs", x) | attributes_of("rhs", y) | attributes_of("output", output)
    return _call(f"qnn.{name}", args, rounding=rounding, **attrs)


def concatenate(parts: Sequence[Expr], inputs: Sequence[QParams], output: QParams, axis: int) -> Expr:
    """Parts on their own grids, joined along `axis` on the output's. Per tensor only."""
    pairs = [operands_of(p) for p in inputs]
    scales, zero_points = Tuple([s for s, _ in pairs]), Tuple([z for _, z in pairs])
    args = [Tuple(list(parts)), scales, zero_points, *operands_of(output)]
    return _call("qnn.concatenate", args, axis=axis, **attributes_of("output", output))


def avg_pool(
    data: Expr, source: QParams, output: QParams, *, pool_size: Sequence[int],
    strides: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    count_include_pad: bool = False, ceil_mode: bool = False, layout: str = "NCHW",
    rounding: str = "half_even",
) -> Expr:  # fmt: skip
    """Average pooling in 1 to 3 dimensions (by `layout`), rounded once to the output's grid.

    rounding : half_even; tflite where input and output have one grid.
    """
    return _call(
        "qnn.avg_pool", [data, *operands_of(source), *operands_of(output)],
        pool_size=list(pool_size), strides=list(strides), padding=list(padding),
        dilation=list(dilation), count_include_pad=int(count_include_pad),
        ceil_mode=int(ceil_mode), layout=layout, rounding=rounding, **attributes_of("output", output),
    )  # fmt: skip


def mean(
    data: Expr, source: QParams, output: QParams, axis: Sequence[int], keepdims: bool,
    rounding: str = "half_even",
) -> Expr:  # fmt: skip
    """Mean over `axis` (non-negative), rounded once (half_even) or as LiteRT does (tflite)."""
    args = [data, *operands_of(source), *operands_of(output)]
    attrs = attributes_of("output", output)
    return _call("qnn.mean", args, axis=list(axis), keepdims=int(keepdims), rounding=rounding, **attrs)


def softmax(data: Expr, source: QParams, output: QParams, axis: int, rounding: str = "half_even") -> Expr:
    """Softmax of 8-bit data over one axis of static length (non-negative); rounding: half_even, tflite."""
    args = [data, *operands_of(source), *operands_of(output)]
    return _call("qnn.softmax", args, axis=axis, rounding=rounding, **attributes_of("output", output))


def lut(data: Expr, table: np.ndarray[Any, Any]) -> Expr:
    """table[data - least value]; data is int8 or uint8, table has 256 entries of any dtype."""
    return _call("qnn.lut", [data, const(table)])
