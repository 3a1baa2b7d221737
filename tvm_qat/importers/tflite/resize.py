"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR over the rows and columns of NHWC data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError
from tvm_qat.importers.tflite.node import Node, plain
from tvm_qat.ir import Expr, relax

F32 = np.float32


def resize_nearest_neighbor(node: Node) -> Expr:
    """Rows and columns are picked; which ones is known at compile time."""
    options = node.options("ResizeNearestNeighborOptions")
    sizes = _sizes(node)

    def picked(data: Expr) -> Expr:
        for axis, size in enumerate(sizes, start=1):
            places = _nearest(node.shape(0)[axis], size, options)
            if size != node.shape(0)[axis] or places.tolist() != list(range(size)):
                data = node.write(relax.op.take(data, plain(places, "int32"), axis=axis, mode="clip"))
        return data

    return node.moved(0, picked)


def _nearest(size: int, wanted: int, options: Any) -> npt.NDArray[np.int64]:
    """GetNearestNeighbor of LiteRT, in float32 as there."""
    aligned = bool(options.AlignCorners()) and wanted > 1
    scale = F32(size - 1) / F32(wanted - 1) if aligned else F32(size) / F32(wanted)
    offset = F32(0.5) if options.HalfPixelCenters() else F32(0)
    places = (np.arange(wanted).astype(F32) + offset) * scale
    whole = np.floor(places + F32(0.5)) if options.AlignCorners() else np.floor(places)
    return np.asarray(np.clip(whole.astype(np.int64), 0, size - 1))


def resize_bilinear(node: Node) -> Expr:
    options = node.options("ResizeBilinearOptions")
    modes = {(0, 0): "asymmetric", (1, 0): "align_corners", (0, 1): "half_pixel"}
    mode = modes.get((int(options.AlignCorners()), int(options.HalfPixelCenters())))
    if mode is None:
        raise InputError("corners cannot be aligned and pixels counted from their centres")
    resized = relax.op.image.resize2d(
        node.real(0), size=relax.ShapeExpr(_sizes(node)), roi=[0.0] * 4, layout="NHWC", method="linear",
        coordinate_transformation_mode=mode, rounding_method="",
    )  # fmt: skip
    return node.result(node.write(resized))


def _sizes(node: Node) -> list[int]:
    sizes = node.numbers(1)
    if len(node.shape(0)) != 4 or len(sizes) != 2 or min(sizes) < 1 or max(sizes) > 1 << 20:
        raise InputError(f"data of rank {len(node.shape(0))} cannot have the size {sizes}")
    return sizes
