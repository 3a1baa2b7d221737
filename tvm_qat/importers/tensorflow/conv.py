"""Convolutions, in the model's own layout; dilation written as SpaceToBatchND is one again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.padding import same_padding
from tvm_qat.importers.tensorflow.node import Node, as_tensor
from tvm_qat.ir import Expr, const, relax, shape_of

LARGEST = 1 << 31


@dataclass(frozen=True)
class Spaced:
    """Data between SpaceToBatchND and BatchToSpaceND.

    Batches of every block-th row and column, through a convolution without padding, are the rows
    and columns of one convolution whose dilation is `block`.
    data : before SpaceToBatchND. pads : [begin..., end...]. conv : the convolution so far.
    """

    data: Expr
    block: list[int]
    pads: list[int]
    conv: dict[str, Any] | None = None
    weight: Expr = field(default=None)


def conv2d(node: Node) -> Any:
    """Weight [H, W, I, O]; groups follow from the channels."""
    weight = node.tensor(1)
    kernel = _kernel(node)
    channels = _channels(node)
    if kernel[2] == 0 or channels % kernel[2]:
        raise InputError(f"{channels} channels do not fit a weight of {kernel[2]}")
    return _convolved(node, weight, kernel, channels // kernel[2])


def depthwise(node: Node) -> Any:
    """Weight [H, W, C, M]: M results for each channel."""
    kernel, channels = _kernel(node), _channels(node)
    if kernel[2] != channels:
        raise InputError(f"{channels} channels do not fit a weight of {kernel[2]}")
    shape = (kernel[0], kernel[1], 1, kernel[2] * kernel[3])
    weight = node.write(relax.op.reshape(node.tensor(1), shape))
    return _convolved(node, weight, kernel, channels)


def _kernel(node: Node) -> list[int]:
    if len(node.shape(1)) != 4:
        raise InputError(f"a weight of rank {len(node.shape(1))}")
    return node.sizes(1, [0, 1, 2, 3])


def _channels(node: Node) -> int:
    data, layout = node.value(0), layout_of(node)
    shape = shape_of(data.data) if isinstance(data, Spaced) else node.shape(0)
    if shape is None or len(shape) != 4:
        raise InputError("its data has not rank 4")
    size = shape[layout.index("C")]
    if not isinstance(size, int):
        raise UnsupportedError("an unknown number of channels is not supported; give input_shapes")
    return size


def _convolved(node: Node, weight: Expr, kernel: Sequence[int], groups: int) -> Any:
    layout, data = layout_of(node), node.value(0)
    strides, dilation = spatial(node, "strides"), spatial(node, "dilations")
    common = {"groups": groups, "data_layout": layout, "kernel_layout": "HWIO"}
    if isinstance(data, Spaced):
        plain = node.text("padding", "") == "VALID" and [*strides, *dilation] == [1] * 4
        if data.conv is not None or not plain or layout != "NHWC":
            raise UnsupportedError("SpaceToBatchND is only supported around one plain convolution")
        return Spaced(data.data, data.block, data.pads, {"strides": strides, **common}, weight)
    pads = padding_of(node, kernel[:2], strides, dilation)
    return relax.op.nn.conv2d(
        as_tensor(data), weight, strides=strides, padding=pads, dilation=dilation, **common
    )


def layout_of(node: Node) -> str:
    layout = node.text("data_format", "NHWC")
    if layout not in ("NHWC", "NCHW"):
        raise UnsupportedError(f"data_format {layout!r} is not supported")
    return layout


def spatial(node: Node, name: str) -> list[int]:
    """Height and width of an attribute that has an entry for each dimension."""
    values, layout = node.wholes(name, [1, 1, 1, 1]), layout_of(node)
    if len(values) != 4 or not all(0 < value < LARGEST for value in values):
        raise InputError(f"{name} {values} are not four positive numbers")
    if values[layout.index("N")] != 1 or values[layout.index("C")] != 1:
        raise UnsupportedError(f"{name} over batch or channels are not supported")
    return [values[layout.index(axis)] for axis in "HW"]


def padding_of(
    node: Node, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """[top, left, bottom, right] of the node's window."""
    mode, layout = node.text("padding", ""), layout_of(node)
    places = [layout.index(axis) for axis in "HW"]
    if mode == "VALID":
        return [0] * 4
    if mode == "SAME":
        return same_padding([node.shape(0)[place] for place in places], kernel, strides, dilation)
    explicit = node.wholes("explicit_paddings", [])
    if mode != "EXPLICIT" or len(explicit) != 8 or not all(0 <= pad < LARGEST for pad in explicit):
        raise InputError(f"padding {mode!r} {explicit} is not known")
    return [explicit[2 * place + end] for end in (0, 1) for place in places]


def transposed(node: Node) -> Expr:
    """Conv2DBackpropInput: result sizes, weight [H, W, O, I], data.

    TVM compiles transposed convolutions with channels first; the permutations cancel later.
    """
    layout, kernel = layout_of(node), _kernel(node)
    strides, dilation = spatial(node, "strides"), spatial(node, "dilations")
    if dilation != [1, 1]:
        raise UnsupportedError("a dilated transposed convolution is not supported")
    sizes = node.constant(0, "a result size").reshape(-1)
    data = node.tensor(2)
    if len(node.shape(2)) != 4 or sizes.size not in (2, 4):
        raise InputError("its data or result size has not rank 4")
    places = [layout.index(axis) for axis in "HW"]
    wanted = [sizes[place] if sizes.size == 4 else sizes[i] for i, place in enumerate(places)]
    pads, extra = _transposed_pads(node, kernel, strides, node.sizes(2, places), wanted)
    if layout == "NHWC":
        data = node.write(relax.op.permute_dims(data, [0, 3, 1, 2]))
    weight = node.write(relax.op.permute_dims(node.tensor(1), [3, 2, 0, 1]))
    made = relax.op.nn.conv2d_transpose(
        data, weight, strides=strides, padding=pads, output_padding=extra, data_layout="NCHW",
        kernel_layout="IOHW",
    )  # fmt: skip
    return relax.op.permute_dims(node.write(made), [0, 2, 3, 1]) if layout == "NHWC" else made


def _transposed_pads(
    node: Node, kernel: Sequence[int], strides: Sequence[int], sizes: Sequence[int], wanted: Sequence[Any]
) -> tuple[list[int], list[int]]:
    """The padding of the convolution that this one is the gradient of, cut from its result."""
    mode = node.text("padding", "")
    if mode not in ("SAME", "VALID") or not all(isinstance(int(size), int) for size in wanted):
        raise UnsupportedError(f"padding {mode!r} is not supported")
    out = [int(size) for size in wanted]
    pads = same_padding(out, kernel[:2], strides, [1, 1]) if mode == "SAME" else [0] * 4
    extra = []
    for i, size in enumerate(out):
        full = (sizes[i] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + 2]
        extra.append(size - full)
    if min(extra) < 0 or any(more >= stride for more, stride in zip(extra, strides, strict=True)):
        raise InputError(f"a result of {out} does not follow from data of {list(sizes)}")
    return pads, extra


def space_to_batch(node: Node) -> Spaced:
    block, pads = node.numbers(1, "a block"), node.numbers(2, "paddings")
    if len(block) != 2 or len(pads) != 4 or len(node.shape(0)) != 4:
        raise UnsupportedError("only blocks over height and width are supported")
    if not all(0 < size < LARGEST for size in block) or not all(0 <= pad < LARGEST for pad in pads):
        raise InputError(f"block {block} or paddings {pads} are out of range")
    return Spaced(node.tensor(0), block, [pads[0], pads[2], pads[1], pads[3]])


def batch_to_space(node: Node) -> Expr:
    """Cutting its result is padding less before; what cannot be padded less is cut."""
    value, block, crops = node.value(0), node.numbers(1, "a block"), node.numbers(2, "crops")
    if not isinstance(value, Spaced) or value.conv is None or block != value.block or len(crops) != 4:
        raise UnsupportedError("BatchToSpaceND is only supported after SpaceToBatchND and a convolution")
    ends = [crops[0], crops[2], crops[1], crops[3]]
    pads = [pad - crop for pad, crop in zip(value.pads, ends, strict=True)]
    made = relax.op.nn.conv2d(
        value.data, value.weight, padding=[max(pad, 0) for pad in pads], dilation=value.block, **value.conv
    )
    if min(pads) >= 0:
        return made
    bound = node.write(made)
    shape = shape_of(bound) or ()
    if not all(isinstance(size, int) for size in shape[1:3]):
        raise UnsupportedError("it cuts sizes that are only known at run time")
    begin = [max(-pad, 0) for pad in pads[:2]]
    end = [shape[1 + i] - max(-pad, 0) for i, pad in enumerate(pads[2:])]
    return relax.op.strided_slice(bound, [1, 2], begin, end)


def bias_add(node: Node) -> Expr:
    """Along the channels: the last axis, or the second with channels first."""
    rank, bias = len(node.shape(0)), node.value(1)
    if len(node.shape(1)) != 1:
        raise InputError(f"a bias of rank {len(node.shape(1))}")
    if node.text("data_format", "NHWC") == "NCHW" and rank > 2:
        shape = (-1, *[1] * (rank - 2))
        bias = (
            bias.reshape(shape) if isinstance(bias, np.ndarray)
            else node.write(relax.op.reshape(bias, shape))
        )  # fmt: skip
    return relax.op.add(node.tensor(0), as_tensor(bias))


def batch_norm(node: Node) -> Expr:
    """FusedBatchNorm with moving statistics; its other results are for training."""
    if node.flag("is_training", True):
        raise UnsupportedError("it normalizes by its batch: this is a training graph; export for inference")
    layout = layout_of(node)
    parameters = [const(np.asarray(node.constant(i, "a statistic"), np.float32)) for i in range(1, 5)]
    made = relax.op.nn.batch_norm(
        node.tensor(0),
        *parameters,
        axis=layout.index("C"),
        epsilon=node.real("epsilon", 1e-4),
        training=False,
    )
    return relax.TupleGetItem(node.write(made), 0)
