"""Convolutions, with the window of the node made explicit (auto_pad, output_shape, missing parts)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, array_of, const, is_const, relax

LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW"), 3: ("NCDHW", "OIDHW", "IODHW")}
"""By spatial rank: layout of data, of a kernel, of a transposed kernel."""


@dataclass(frozen=True)
class Window:
    """padding: [begin..., end...]."""

    strides: list[int]
    padding: list[int]
    dilation: list[int]
    kernel: list[int]


def window(node: Node, spatial: tuple[object, ...], kernel: tuple[int, ...]) -> Window:
    """The window of a convolution or pooling over `spatial` dimensions of the data."""
    rank = len(spatial)
    strides, dilation = node.wholes("strides", [1] * rank), node.wholes("dilations", [1] * rank)
    pads = node.wholes("pads", [0] * (2 * rank))
    if len(strides) != rank or len(dilation) != rank or len(pads) != 2 * rank or len(kernel) != rank:
        raise InputError(f"kernel, strides, dilations or pads do not have {rank} dimensions")
    if min(*strides, *dilation, *kernel) <= 0 or min(pads) < 0:
        raise InputError("kernel, strides and dilations must be positive and pads not negative")
    if max(*strides, *dilation, *kernel, *pads) >= 1 << 31:
        raise InputError("kernel, strides, dilations or pads are too large")
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "VALID":
        pads = [0] * (2 * rank)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(mode, spatial, strides, dilation, kernel)
    elif mode != "NOTSET":
        raise InputError(f"auto_pad {mode!r} is not known")
    return Window(strides, pads, dilation, list(kernel))


def _same(
    mode: str, spatial: tuple[object, ...], strides: list[int], dilation: list[int], kernel: tuple[int, ...]
) -> list[int]:
    """Padding that makes the output ceil(size / stride) long; an odd one goes to the named end."""
    before, after = [], []
    for size, stride, step, taps in zip(spatial, strides, dilation, kernel, strict=True):
        if not isinstance(size, int):
            raise UnsupportedError(f"auto_pad {mode} needs fixed spatial dimensions; give input_shapes")
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * step + 1 - size, 0)
        before.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return before + after


def spatial_rank(node: Node) -> int:
    rank = len(node.shape(0)) - 2
    if rank not in LAYOUTS:
        raise UnsupportedError(f"data of rank {rank + 2} is not supported")
    return rank


def kernel_shape(node: Node, index: int) -> tuple[int, ...]:
    """Spatial dimensions of the weight, which must agree with the attribute and be known."""
    shape = node.shape(index)
    rank = spatial_rank(node)
    if len(shape) != rank + 2:
        raise InputError(f"the weight has rank {len(shape)} but the data {rank + 2}")
    if not all(isinstance(size, int) for size in shape[2:]):
        raise UnsupportedError("a kernel of unknown size is not supported")
    kernel = tuple(int(size) for size in shape[2:])
    declared = tuple(node.wholes("kernel_shape", kernel))
    if declared != kernel:
        raise InputError(f"kernel_shape is {list(declared)} but the weight has {list(kernel)}")
    return kernel


def float_conv(node: Node, data: Expr, weight: Expr, weight_index: int) -> Expr:
    """The convolution of dequantized or float operands, without bias."""
    function = (relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d)[spatial_rank(node) - 1]
    return function(data, weight, **conv_attributes(node, weight_index))


def conv_attributes(node: Node, weight_index: int) -> dict[str, Any]:
    """Strides to layouts, as TVM's convolutions and the dialect's both name them."""
    check_channels(node, weight_index)
    frame = window(node, node.shape(0)[2:], kernel_shape(node, weight_index))
    data_layout, kernel_layout = LAYOUTS[spatial_rank(node)][:2]
    return {
        "strides": frame.strides,
        "padding": frame.padding,
        "dilation": frame.dilation,
        "groups": node.whole("group", 1),
        "data_layout": data_layout,
        "kernel_layout": kernel_layout,
    }


def check_channels(node: Node, weight_index: int) -> None:
    channels, weight, groups = node.shape(0)[1], node.shape(weight_index), node.whole("group", 1)
    if groups <= 0:
        raise InputError(f"group {groups} is not positive")
    if isinstance(channels, int) and isinstance(weight[1], int) and channels != weight[1] * groups:
        raise InputError(f"{channels} channels do not fit a weight of {weight[1]} in {groups} groups")


def with_bias(builder: BlockBuilder, result: Expr, bias: Expr, rank: int) -> Expr:
    """result + bias [C], on axis 1 of `rank` + 2."""
    shape = (1, -1, *[1] * rank)
    spread = (
        const(array_of(bias).reshape(shape))
        if is_const(bias)
        else builder.emit(relax.op.reshape(bias, shape))
    )
    return relax.op.add(result, spread)


def conv(builder: BlockBuilder, node: Node) -> Expr:
    result = builder.emit(float_conv(node, node.require(0), node.require(1), 1))
    bias = node.optional(2)
    return result if bias is None else with_bias(builder, result, bias, spatial_rank(node))


def conv_transpose(builder: BlockBuilder, node: Node) -> Expr:
    rank = spatial_rank(node)
    kernel = kernel_shape(node, 1)
    frame = window(_without_auto_pad(node), node.shape(0)[2:], kernel)
    extra = node.wholes("output_padding", [0] * rank)
    padding, extra = _transposed_padding(node, frame, extra)
    function = (relax.op.nn.conv1d_transpose, relax.op.nn.conv2d_transpose, relax.op.nn.conv3d_transpose)[
        rank - 1
    ]
    result = builder.emit(
        function(
            node.require(0),
            node.require(1),
            strides=frame.strides,
            padding=padding,
            output_padding=extra,
            dilation=frame.dilation,
            groups=node.whole("group", 1),
            data_layout=LAYOUTS[rank][0],
            kernel_layout=LAYOUTS[rank][2],
        )
    )
    bias = node.optional(2)
    return result if bias is None else with_bias(builder, result, bias, rank)


def _without_auto_pad(node: Node) -> Node:
    return replace(node, attrs={k: v for k, v in node.attrs.items() if k != "auto_pad"})


def _transposed_padding(node: Node, frame: Window, extra: list[int]) -> tuple[list[int], list[int]]:
    """(padding, output padding). ONNX derives padding from output_shape or from SAME_*.

    total = stride * (size - 1) + output_padding + (kernel - 1) * dilation + 1 - output size, and
    SAME means an output of size * stride.
    """
    mode, wanted = node.attrs.get("auto_pad", "NOTSET"), node.attrs.get("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        return (frame.padding if mode == "NOTSET" else [0] * len(frame.padding)), extra
    before, after = [], []
    for i, size in enumerate(node.shape(0)[2:]):
        reach = (frame.kernel[i] - 1) * frame.dilation[i] + 1 + extra[i]
        if wanted is None:
            total = reach - frame.strides[i]
        elif isinstance(size, int):
            total = frame.strides[i] * (size - 1) + reach - int(wanted[i])
        else:
            raise UnsupportedError("output_shape needs fixed spatial dimensions; give input_shapes")
        if total < 0:
            extra[i], total = extra[i] - total, 0
        before.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return before + after, extra
