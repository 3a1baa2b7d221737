"""Blocks of pixels as channels and back, and resizing."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tensorflow.conv import layout_of
from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import Expr, relax


def space_to_depth(node: Node) -> Expr:
    batch, height, width, channels, block = _image(node)
    if height % block or width % block:
        raise InputError(f"blocks of {block} do not divide {height} by {width}")
    split = (batch, height // block, block, width // block, block, channels)
    joined = (batch, height // block, width // block, block * block * channels)
    return _rearranged(node, split, joined)


def depth_to_space(node: Node) -> Expr:
    batch, height, width, channels, block = _image(node)
    if channels % (block * block):
        raise InputError(f"blocks of {block} do not divide {channels} channels")
    rest = channels // (block * block)
    split = (batch, height, width, block, block, rest)
    return _rearranged(node, split, (batch, height * block, width * block, rest))


def _image(node: Node) -> tuple[Any, int, int, int, int]:
    """(batch, height, width, channels, block)."""
    block = node.whole("block_size", 0)
    if layout_of(node) != "NHWC":
        raise UnsupportedError("only data_format NHWC is supported")
    if len(node.shape(0)) != 4 or block < 1:
        raise InputError(f"blocks of {block} of data of rank {len(node.shape(0))}")
    height, width, channels = node.sizes(0, [1, 2, 3])
    return node.shape(0)[0], height, width, channels, block


def _rearranged(node: Node, split: tuple[Any, ...], joined: tuple[Any, ...]) -> Expr:
    """Both directions exchange the third and the fourth of six axes."""
    parts = node.write(relax.op.reshape(node.tensor(0), split))
    moved = node.write(relax.op.permute_dims(parts, [0, 1, 3, 2, 4, 5]))
    return relax.op.reshape(moved, joined)


def resize(method: str) -> Any:
    """method: linear or nearest_neighbor."""

    def converter(node: Node) -> Expr:
        wanted = node.numbers(1, "a size")
        if len(wanted) != 2 or len(node.shape(0)) != 4 or min(wanted) < 1:
            raise InputError(f"a size of {wanted} for data of rank {len(node.shape(0))}")
        mode, rounding = "asymmetric", "floor"
        if node.flag("half_pixel_centers"):
            mode, rounding = "half_pixel", "round_prefer_ceil"
        elif node.flag("align_corners"):
            mode, rounding = "align_corners", "round_prefer_ceil"
        return relax.op.image.resize2d(
            node.tensor(0), tuple(wanted), layout="NHWC", method=method,
            coordinate_transformation_mode=mode,
            rounding_method=rounding if method == "nearest_neighbor" else "round",
        )  # fmt: skip

    return converter
