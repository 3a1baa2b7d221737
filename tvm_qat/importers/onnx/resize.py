"""Resize over the spatial axes, where TVM and ONNX mean the same.

ONNX maps coordinates by the scale that the model gives, TVM by the ratio of the sizes; the two
agree where the scaled size is whole, and anything else is refused.
"""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, relax

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_REQUIRED = {"antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}


def resize(builder: BlockBuilder, node: Node) -> Expr:
    """Inputs X, scales (opset 10), or X, roi, scales, sizes; 3 or 4 dimensions."""
    shape = node.shape(0)
    if len(shape) not in (3, 4):
        raise UnsupportedError(f"data of rank {len(shape)} is not supported")
    method, coordinates = _modes(node)
    sizes = _sizes(node, shape)
    data = node.require(0)
    if len(shape) == 3:
        data = emit(builder, relax.op.expand_dims(data, 2))
    result = relax.op.image.resize2d(
        data,
        size=relax.ShapeExpr([1, *sizes][-2:]),
        roi=[0.0] * 4,
        layout="NCHW",
        method=method,
        coordinate_transformation_mode=coordinates,
        rounding_method=node.attrs.get("nearest_mode", "round_prefer_floor") if node.opset > 10 else "floor",
        cubic_alpha=node.real("cubic_coeff_a", -0.75),
    )
    return relax.op.squeeze(emit(builder, result), 2) if len(shape) == 3 else result


def _modes(node: Node) -> tuple[str, str]:
    """TVM's names of interpolation and coordinates. Opset 10 knew `asymmetric` only."""
    for name, allowed in _REQUIRED.items():
        if node.attrs.get(name, allowed) != allowed:
            raise UnsupportedError(f"{name} {node.attrs[name]!r} is not supported")
    mode = node.attrs.get("mode", "nearest")
    coordinates = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    coordinates = coordinates if node.opset > 10 else "asymmetric"
    if mode not in _METHODS or coordinates not in _COORDINATES:
        raise UnsupportedError(f"mode {mode!r} with {coordinates!r} is not supported")
    return _METHODS[mode], coordinates


def _sizes(node: Node, shape: tuple[Any, ...]) -> list[int]:
    """Spatial sizes of the result, from `sizes` or from scales that make whole ones."""
    scales, sizes = _constants(node)
    axes = [axis % len(shape) for axis in node.wholes("axes", range(len(shape)))]
    given = sizes if sizes is not None else scales
    if given is None or len(given) != len(axes):
        raise InputError(f"scales or sizes do not fit {len(axes)} axes")
    wanted: list[Any] = list(shape)
    for axis, value in zip(axes, given, strict=True):
        if sizes is not None:
            wanted[axis] = shape[axis] if axis < 2 and not isinstance(shape[axis], int) else int(value)
        elif value != 1:
            wanted[axis] = _scaled(shape[axis], float(value))
    if any(new is not old and new != old for new, old in zip(wanted[:2], shape[:2], strict=True)):
        raise UnsupportedError("resizing of batch or channels is not supported")
    if not all(isinstance(size, int) and size > 0 for size in wanted[2:]):
        raise UnsupportedError("it needs fixed, positive spatial dimensions; give input_shapes")
    return wanted[2:]


def _scaled(size: Any, scale: float) -> int:
    if not isinstance(size, int):
        raise UnsupportedError("it needs fixed spatial dimensions; give input_shapes")
    exact = size * scale
    if abs(exact - round(exact)) > 1e-4 * size:
        raise UnsupportedError(f"{size} elements times {scale:g} is not a whole size")
    return round(exact)


def _constants(node: Node) -> tuple[list[float] | None, list[float] | None]:
    found = []
    for index in (1, 3) if node.opset == 10 else (2, 3):
        values = node.constant(index)
        if node.optional(index) is not None and values is None:
            raise UnsupportedError("scales or sizes that are computed at run time are not supported")
        found.append(None if values is None or not values.size else values.reshape(-1).tolist())
    return found[0], found[1]
