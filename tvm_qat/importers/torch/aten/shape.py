"""Operators that move, join or cut elements."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.torch.aten.types import cast, unified
from tvm_qat.importers.torch.node import Node, axis_of
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, relax, shape_of


def identity(_write: Writer, node: Node) -> Expr:
    """Copies, dropout at inference, memory formats."""
    return node.tensor("input" if "input" in node.args else "self")


def to(write: Writer, node: Node) -> Expr:
    """Moves to other devices mean nothing here; another dtype is a cast."""
    dtype = node.args.get("dtype")
    if node.has("other"):
        dtype = node.dtype("other")
    return cast(write, node.tensor("self"), dtype) if dtype else node.tensor("self")


def reshape(write: Writer, node: Node) -> Expr:
    """view and reshape: one size may be -1. view(dtype), which reinterprets bits, is refused."""
    if node.has("dtype"):
        raise UnsupportedError("a view as another data type is not supported")
    return reshaped(write, node.tensor("self"), node.args.get("shape", node.args.get("size")))


def reshaped(write: Writer, data: Expr, sizes: Any) -> Expr:
    """A symbolic size that is the data's own at the same place becomes -1: no division appears."""
    return write(relax.op.reshape(data, list(sizes)))


def reshape_as(write: Writer, node: Node) -> Expr:
    return reshaped(write, node.tensor("self"), node.shape("other"))


def flatten(write: Writer, node: Node) -> Expr:
    shape = node.shape("self")
    rank = len(shape)
    first, last = node.axis("start_dim", rank, 0), node.axis("end_dim", rank, -1)
    if first > last:
        raise InputError(f"start_dim {first} is behind end_dim {last}")
    joined: Any = 1
    for size in shape[first : last + 1]:
        joined = joined * size
    return reshaped(write, node.tensor("self"), [*shape[:first], joined, *shape[last + 1 :]])


def unflatten(write: Writer, node: Node) -> Expr:
    shape = node.shape("self")
    axis = node.axis("dim", len(shape))
    return reshaped(write, node.tensor("self"), [*shape[:axis], *node.args["sizes"], *shape[axis + 1 :]])


def permute(_write: Writer, node: Node) -> Expr:
    rank = len(node.shape("self"))
    axes = [axis_of(axis, rank) for axis in node.wholes("dims")]
    return relax.op.permute_dims(node.tensor("self"), axes)


def transpose(_write: Writer, node: Node) -> Expr:
    rank = len(node.shape("self"))
    axes = list(range(rank))
    first, second = node.axis("dim0", rank), node.axis("dim1", rank)
    axes[first], axes[second] = axes[second], axes[first]
    return relax.op.permute_dims(node.tensor("self"), axes)


def t(_write: Writer, node: Node) -> Expr:
    rank = len(node.shape("self"))
    return node.tensor("self") if rank < 2 else relax.op.permute_dims(node.tensor("self"), [1, 0])


def unsqueeze(_write: Writer, node: Node) -> Expr:
    axis = node.axis("dim", len(node.shape("self")) + 1)
    return relax.op.expand_dims(node.tensor("self"), axis)


def squeeze(_write: Writer, node: Node) -> Expr:
    """All axes of length 1, or those named; one that is longer stays."""
    shape = node.shape("self")
    named = node.wholes("dim") if node.has("dim") else list(range(len(shape)))
    axes = [axis for axis in (axis_of(a, len(shape)) for a in named) if shape[axis] == 1]
    return relax.op.squeeze(node.tensor("self"), axes) if axes else node.tensor("self")


def cat(write: Writer, node: Node) -> Expr:
    parts = unified(write, *node.tensors("tensors"))
    return relax.op.concat(parts, node.axis("dim", len(shape_of(parts[0]) or ()), 0))


def stack(write: Writer, node: Node) -> Expr:
    parts = unified(write, *node.tensors("tensors"))
    axis = node.axis("dim", len(shape_of(parts[0]) or ()) + 1, 0)
    return relax.op.concat([write(relax.op.expand_dims(part, axis)) for part in parts], axis)


def slice_(_write: Writer, node: Node) -> Expr:
    """start and end count from the back where negative, and stop at the borders."""
    shape = node.shape("self")
    axis = node.axis("dim", len(shape), 0)
    size, step = shape[axis], node.whole("step", 1)
    begin, end = node.args.get("start"), node.args.get("end")
    begin = 0 if begin is None else begin
    end = (1 << 63) - 1 if end is None else end
    if begin == 0 and step == 1 and isinstance(end, int) and end >= (1 << 62):
        return node.tensor("self")
    if not all(isinstance(value, int) for value in (size, begin, end)):
        raise UnsupportedError("a slice of a dimension of unknown size is not supported")
    low, high, stride = slice(begin, end, step).indices(size)
    return relax.op.strided_slice(node.tensor("self"), [axis], [low], [max(low, high)], [stride])


def select(write: Writer, node: Node) -> Expr:
    shape = node.shape("self")
    axis = node.axis("dim", len(shape))
    index = node.whole("index")
    if isinstance(shape[axis], int):
        index = axis_of(index, shape[axis])
    elif index < 0:
        raise UnsupportedError("the end of a dimension of unknown size is not supported")
    part = relax.op.strided_slice(node.tensor("self"), [axis], [index], [index + 1])
    return relax.op.squeeze(write(part), [axis])


def split(_write: Writer, node: Node) -> Expr:
    """split and split_with_sizes: one size for all parts, or a list of them."""
    shape = node.shape("self")
    axis = node.axis("dim", len(shape), 0)
    sizes = node.args.get("split_sizes", node.args.get("split_size"))
    total = shape[axis]
    if not isinstance(total, int):
        raise UnsupportedError("splitting a dimension of unknown size is not supported")
    if isinstance(sizes, int):
        cuts = list(range(sizes, total, sizes))
    else:
        cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return relax.op.split(node.tensor("self"), cuts, axis)


def chunk(_write: Writer, node: Node) -> Expr:
    shape = node.shape("self")
    axis = node.axis("dim", len(shape), 0)
    if not isinstance(shape[axis], int):
        raise UnsupportedError("splitting a dimension of unknown size is not supported")
    each = -(-shape[axis] // node.whole("chunks"))
    return relax.op.split(node.tensor("self"), list(range(each, shape[axis], each)), axis)


def expand(_write: Writer, node: Node) -> Expr:
    """-1 keeps a size."""
    shape, sizes = node.shape("self"), node.args["size"]
    lead = len(sizes) - len(shape)
    target = [
        shape[i - lead] if isinstance(size, int) and size == -1 else size for i, size in enumerate(sizes)
    ]
    return relax.op.broadcast_to(node.tensor("self"), target)


def repeat(_write: Writer, node: Node) -> Expr:
    return relax.op.tile(node.tensor("self"), node.wholes("repeats"))


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def pad(_write: Writer, node: Node) -> Expr:
    """torch's pads start at the last dimension: [left, right, top, bottom...]."""
    pads, rank = node.wholes("pad" if "pad" in node.args else "padding"), len(node.shape("self"))
    mode = node.args.get("mode", _mode_of(node.op))
    if len(pads) % 2 or len(pads) > 2 * rank or min(pads, default=0) < 0 or mode not in _MODES:
        raise UnsupportedError(f"padding by {pads} in mode {mode!r} is not supported")
    widths = [0] * (2 * rank)
    for i in range(len(pads) // 2):
        widths[2 * (rank - 1 - i) : 2 * (rank - i)] = pads[2 * i : 2 * i + 2]
    value = node.real("value", 0.0)
    return relax.op.nn.pad(node.tensor("self"), widths, _MODES[mode], pad_value=value)


def _mode_of(op: str) -> str:
    """aten.reflection_pad2d and aten.replication_pad2d name the mode."""
    return "reflect" if "reflection" in op else "replicate" if "replication" in op else "constant"


def pixel_shuffle(write: Writer, node: Node) -> Expr:
    """[N, C r r, H, W] -> [N, C, H r, W r]."""
    shape, factor = node.shape("self"), node.whole("upscale_factor")
    if len(shape) != 4 or not isinstance(shape[1], int):
        raise UnsupportedError("pixels are shuffled in tensors of rank 4 only")
    batch, channels, height, width = shape
    kept = channels // factor**2
    split = write(relax.op.reshape(node.tensor("self"), (batch, kept, factor, factor, height, width)))
    turned = write(relax.op.permute_dims(split, [0, 1, 4, 2, 5, 3]))
    return relax.op.reshape(turned, (batch, kept, height * factor, width * factor))


def flip(write: Writer, node: Node) -> Expr:
    data, rank = node.tensor("self"), len(node.shape("self"))
    for axis in node.wholes("dims"):
        data = write(relax.op.flip(data, axis_of(axis, rank)))
    return data
