"""Sums of products: convolutions, fully connected layers, matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.padding import same_padding
from tvm_qat.importers.tflite.node import Node, plain
from tvm_qat.ir import Expr, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

SAME, VALID = 0, 1
MOST_WINDOW = 1 << 31


@dataclass(frozen=True)
class Window:
    """padding: [top, left, bottom, right]."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]


def window(options: Any, size: tuple[int, int], kernel: tuple[int, int], dilated: bool = True) -> Window:
    """The window that the options describe, over data of this size."""
    strides = (int(options.StrideH()), int(options.StrideW()))
    dilation = (int(options.DilationHFactor()), int(options.DilationWFactor())) if dilated else (1, 1)
    if min(*strides, *dilation, *kernel) <= 0 or max(*strides, *dilation, *kernel) >= MOST_WINDOW:
        raise InputError(f"kernel {kernel}, strides {strides} or dilation {dilation} are impossible")
    if options.Padding() not in (SAME, VALID):
        raise InputError(f"padding {options.Padding()} is not known")
    same = options.Padding() == SAME
    top, left, bottom, right = same_padding(size, kernel, strides, dilation) if same else (0, 0, 0, 0)
    return Window(kernel, strides, dilation, (top, left, bottom, right))


def conv_2d(node: Node) -> Expr:
    """Data NHWC, weight OHWI; fewer input channels in the weight mean groups."""
    data, weight = _shape4(node, 0), _shape4(node, 1)
    options = node.options("Conv2DOptions")
    groups, rest = divmod(data[3], max(weight[3], 1))
    if rest or not groups or weight[0] % groups:
        raise InputError(f"{data[3]} channels do not fit a weight of shape {list(weight)}")
    frame = window(options, (data[1], data[2]), (weight[1], weight[2]))
    result = _conv(node, node.real(1), frame, groups, "OHWI")
    return node.result(with_bias(node, result, 2), options.FusedActivationFunction())


def depthwise_conv_2d(node: Node) -> Expr:
    """Data NHWC, weight [1, H, W, C * multiplier]: one group a channel of the data."""
    data, weight = _shape4(node, 0), _shape4(node, 1)
    options = node.options("DepthwiseConv2DOptions")
    if weight[0] != 1 or not data[3] or weight[3] % data[3]:
        raise InputError(f"{data[3]} channels do not fit a weight of shape {list(weight)}")
    frame = window(options, (data[1], data[2]), (weight[1], weight[2]))
    result = _conv(node, node.real(1), frame, data[3], "IHWO")
    return node.result(with_bias(node, result, 2), options.FusedActivationFunction())


def _shape4(node: Node, index: int) -> tuple[int, ...]:
    shape = node.shape(index)
    if len(shape) != 4:
        raise InputError(f"input {index} has rank {len(shape)}, not 4")
    return shape


def _conv(node: Node, weight: Expr, frame: Window, groups: int, layout: str) -> Expr:
    return node.write(
        relax.op.nn.conv2d(
            node.real(0), weight, strides=list(frame.strides), padding=list(frame.padding),
            dilation=list(frame.dilation), groups=groups, data_layout="NHWC", kernel_layout=layout,
        )
    )  # fmt: skip


def with_bias(node: Node, result: Expr, index: int, *, data: int = 0, weight: int = 1) -> Expr:
    """result + bias along the last axis.

    LiteRT adds the bias to the sum as an integer, whatever scale the file gives it. So it lies
    on the grid of the sum here: the product of the two scales, which the file's float32 rounds.
    """
    if not node.has(index):
        return result
    values, x, w = node.constant(index), node.params(data), node.params(weight)
    if x is None or w is None or values is None or node.tensor(index).dtype == "float32":
        return node.write(relax.op.add(result, node.real(index)))
    _check_bias(node, index, values, x, w)
    grid = QParams(x.scale * w.scale, dtype="int32", axis=0 if w.per_channel else None)
    stored = plain(values, "int32", node.tensor(index).name or None)
    bias = node.write(build.dequantize(stored, grid.check_axis(values.shape)))
    return node.write(relax.op.add(result, bias))


def _check_bias(node: Node, index: int, values: Any, x: QParams, w: QParams) -> None:
    if np.abs(values.astype(np.float64)).max(initial=0) >= 2**31:
        raise UnsupportedError("its bias does not fit 32 bits")
    given, target = node.params(index), node.outputs[0].params
    if given is None or target is None or given.per_channel or w.per_channel:
        return
    # the condition of LiteRT's GetQuantizedConvolutionMultipler
    gap = abs(float(x.scale * w.scale) - float(given.scale)) / float(target.scale.reshape(-1)[0])
    if gap > 0.02:
        raise InputError(f"the scale of its bias, {float(given.scale):g}, does not fit its operands'")


def transpose_conv(node: Node) -> Expr:
    """Inputs: shape of the result, weight [O, H, W, I], data NHWC, bias.

    SAME and VALID speak of the convolution that this one reverses, from the result to the data.
    Written channels-first, the form in which TVM has it for floats too; the layout pass turns
    it. A shape that is computed at run time must be the one that the file gives the result.
    """
    options, data, weight = node.options("TransposeConvOptions"), _shape4(node, 2), _shape4(node, 1)
    wanted = node.numbers(0) if node.constant(0) is not None else list(node.outputs[0].shape)
    if len(wanted) != 4 or wanted[0] != data[0] or wanted[3] != weight[0] or weight[3] != data[3]:
        raise InputError(f"a weight of {list(weight)} does not make {wanted} of {list(data)}")
    frame = window(options, (wanted[1], wanted[2]), (weight[1], weight[2]), dilated=False)
    ends, extra = [], []
    for i in range(2):
        grown = (data[1 + i] - 1) * frame.strides[i] + frame.kernel[i] - frame.padding[i]
        ends.append(max(grown - wanted[1 + i], 0))
        extra.append(max(wanted[1 + i] - grown, 0))
    first = node.write(relax.op.permute_dims(node.real(2), [0, 3, 1, 2]))
    turned = node.write(relax.op.permute_dims(node.real(1), [3, 0, 1, 2]))
    result = node.write(
        relax.op.nn.conv2d_transpose(
            first, turned, strides=list(frame.strides), padding=[*frame.padding[:2], *ends],
            output_padding=extra, data_layout="NCHW", kernel_layout="IOHW",
        )
    )  # fmt: skip
    last = node.write(relax.op.permute_dims(result, [0, 2, 3, 1]))
    activation = options.FusedActivationFunction()
    return node.result(with_bias(node, last, 3, data=2), activation)


def fully_connected(node: Node) -> Expr:
    """Data [..., K] (flattened to rows unless keep_num_dims), weight [N, K]."""
    options = node.options("FullyConnectedOptions")
    if options.WeightsFormat():
        raise UnsupportedError("shuffled weights are not supported")
    weight, shape = node.shape(1), node.shape(0)
    if len(weight) != 2 or not shape or not weight[1] or int(np.prod(shape)) % weight[1]:
        raise InputError(f"data of shape {list(shape)} does not fit a weight of {list(weight)}")
    data = node.real(0)
    keep = bool(options.KeepNumDims()) and shape[-1] == weight[1]
    if not keep and (len(shape) != 2 or shape[-1] != weight[1]):
        data = node.write(relax.op.reshape(data, (int(np.prod(shape)) // weight[1], weight[1])))
    turned = node.write(relax.op.permute_dims(node.real(1), [1, 0]))
    result = node.write(relax.op.matmul(data, turned))
    return node.result(with_bias(node, result, 2), options.FusedActivationFunction())


def batch_matmul(node: Node) -> Expr:
    """x [..., M, K] times y [..., K, N], either transposed first."""
    options = node.options("BatchMatMulOptions")
    sides = []
    for index, turned in enumerate((options.AdjX(), options.AdjY())):
        rank = len(node.shape(index))
        if rank < 2:
            raise InputError(f"input {index} has rank {rank}, not at least 2")
        axes = [*range(rank - 2), rank - 1, rank - 2]
        real = node.real(index)
        sides.append(node.write(relax.op.permute_dims(real, axes)) if turned else real)
    return node.result(node.write(relax.op.matmul(*sides)))
