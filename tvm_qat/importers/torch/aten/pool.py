"""Pooling over windows, adaptive pooling, and resizing."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, relax

_LAYOUTS = ("NCW", "NCHW", "NCDHW")
_MAX = (relax.op.nn.max_pool1d, relax.op.nn.max_pool2d, relax.op.nn.max_pool3d)
_AVERAGE = (relax.op.nn.avg_pool1d, relax.op.nn.avg_pool2d, relax.op.nn.avg_pool3d)


def max_pool(_write: Writer, node: Node) -> Expr:
    rank = _rank(node)
    dilation = node.wholes("dilation", rank)
    return _MAX[rank - 1](node.tensor("self"), dilation=dilation, **_window(node, rank))


def max_pool_with_indices(write: Writer, node: Node) -> list[Expr | None]:
    """Only the values; the places they came from are not translated."""
    return [max_pool(write, node), None]


def avg_pool(_write: Writer, node: Node) -> Expr:
    rank = _rank(node)
    if node.has("divisor_override"):
        raise UnsupportedError("divisor_override is not supported")
    inside = node.flag("count_include_pad", True)
    return _AVERAGE[rank - 1](node.tensor("self"), count_include_pad=inside, **_window(node, rank))


def adaptive_avg_pool(_write: Writer, node: Node) -> Expr:
    """To one element: a mean. To parts of equal size: pooling without overlap."""
    rank, target, spatial = _adaptive(node)
    if target == [1] * rank:
        return relax.op.mean(node.tensor("self"), list(range(2, 2 + rank)), keepdims=True)
    return _AVERAGE[rank - 1](node.tensor("self"), **_equal_parts(spatial, target))


def adaptive_max_pool(_write: Writer, node: Node) -> list[Expr | None]:
    rank, target, spatial = _adaptive(node)
    if target == [1] * rank:
        return [relax.op.max(node.tensor("self"), list(range(2, 2 + rank)), keepdims=True), None]
    return [_MAX[rank - 1](node.tensor("self"), **_equal_parts(spatial, target)), None]


def _adaptive(node: Node) -> tuple[int, list[int], tuple[Any, ...]]:
    rank = _rank(node)
    spatial = node.shape("self")[2:]
    sizes = node.args["output_size"]
    sizes = sizes if isinstance(sizes, list) else [sizes]
    target = [have if want is None else want for want, have in zip(sizes, spatial, strict=True)]
    if not all(isinstance(size, int) and size > 0 for size in target):
        raise UnsupportedError(f"an output size of {target} is not supported")
    return rank, target, spatial


def _equal_parts(spatial: tuple[Any, ...], target: list[int]) -> dict[str, Any]:
    if not all(isinstance(size, int) for size in spatial) or any(
        size % parts for size, parts in zip(spatial, target, strict=True)
    ):
        raise UnsupportedError(f"windows of different sizes ({list(spatial)} to {target}) are not supported")
    sizes = [size // parts for size, parts in zip(spatial, target, strict=True)]
    return {"pool_size": sizes, "strides": sizes, "layout": _LAYOUTS[len(target) - 1]}


def _rank(node: Node) -> int:
    """Spatial dimensions, by the operator's name; the batch dimension must be there."""
    rank = _digit(node.op)
    if len(node.shape("self")) != rank + 2:
        raise UnsupportedError("data without a batch dimension is not supported; add one")
    return rank


def _digit(op: str) -> int:
    """2 of `aten.max_pool2d_with_indices`."""
    return int(next(char for char in op if char.isdigit()))


def _window(node: Node, rank: int) -> dict[str, Any]:
    """An empty stride means that of the kernel."""
    kernel = node.wholes("kernel_size", rank)
    stride = node.args.get("stride")
    return {
        "pool_size": kernel,
        "strides": node.wholes("stride", rank) if stride not in (None, []) else kernel,
        "padding": node.wholes("padding", rank) * 2,
        "ceil_mode": node.flag("ceil_mode"),
        "layout": _LAYOUTS[rank - 1],
    }


def upsample(_write: Writer, node: Node) -> Expr:
    """interpolate to a size or by factors: nearest or bilinear, in two dimensions."""
    spatial = node.shape("input" if "input" in node.args else "self")[2:]
    if len(spatial) != 2 or not all(isinstance(size, int) for size in spatial):
        raise UnsupportedError("resizing is supported in two dimensions of known size only")
    factors = node.args.get("scale_factors") or []
    size = node.args.get("output_size")
    if size is None:
        size = [int(have * factor) for have, factor in zip(spatial, factors, strict=True)]
    aligned = bool(node.args.get("align_corners"))
    nearest = "nearest" in node.op
    exact = all(want % have == 0 for want, have in zip(size, spatial, strict=True))
    if nearest and not exact:
        raise UnsupportedError(f"nearest resizing of {list(spatial)} to {size} is not supported")
    mode = "asymmetric" if nearest else "align_corners" if aligned else "half_pixel"
    method = "nearest_neighbor" if nearest else "linear"
    return relax.op.image.resize2d(
        node.tensor("input" if "input" in node.args else "self"), tuple(size), layout="NCHW", method=method,
        coordinate_transformation_mode=mode, rounding_method="floor" if nearest else "",
    )  # fmt: skip
