"""torch's quantization operators: simulated ones and those of PT2E.

All of them divide by multiplying with the reciprocal of the scale and round half to even; float zero
points per channel are added before that (see qnn.arithmetic for each formula). Observers are off:
parameters are what training left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tvm_qat.errors import InputError
from tvm_qat.importers.torch.grids import grid_of, known
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, const, shape_of
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

_ROUNDING = "reciprocal_half_even"

_FLOAT_ZERO_POINTS = {"float32": "reciprocal_fused", "float16": "reciprocal_zero_point_inside"}
"""fake_quantize_per_channel_affine by the dtype of its zero points. The sum of a float32 one is fused
with the product; a float16 one is converted first, and rounds after each of both.
"""


def fake_quantize(_write: Writer, node: Node) -> Expr:
    """fake_quantize_per_tensor_affine and per_channel, every overload."""
    if node.has("fake_quant_enabled") and not known(node, "fake_quant_enabled").any():
        return node.tensor("self")
    axis = _axis(node, "axis")
    stored = "int32" if axis is None or not node.has("zero_point") else str(known(node, "zero_point").dtype)
    formula = _FLOAT_ZERO_POINTS.get(stored, _ROUNDING)
    return _simulated(node.tensor("self"), grid_of(node, axis=axis), formula)


def fake_quantize_learnable(_write: Writer, node: Node) -> Expr:
    """Scale and zero point were parameters of the training; the zero point is a float there."""
    return _simulated(node.tensor("self"), grid_of(node, axis=_axis(node, "axis"), rounded=True))


def fake_quantize_observed(_write: Writer, node: Node) -> Expr:
    """fused_moving_avg_obs_fake_quant, with what its observer has found so far."""
    if not known(node, "fake_quant_on").any():
        return node.tensor("self")
    least, most = (known(node, name).reshape(-1) for name in ("running_min", "running_max"))
    if not least.size or np.any(least > most):
        raise InputError("its observer has seen no data; run the model on data before it is exported")
    axis = node.whole("ch_axis") if node.flag("per_row_fake_quant") else None
    scale, zero_point = observed_grid(
        least, most, node.whole("quant_min"), node.whole("quant_max"), node.flag("symmetric_quant")
    )
    found = replace(node, args={**node.args, "scale": const(scale), "zero_point": const(zero_point)})
    return _simulated(node.tensor("self"), grid_of(found, axis=axis))


def observed_grid(least: Any, most: Any, qmin: int, qmax: int, symmetric: bool) -> tuple[Any, Any]:
    """Scale and zero point of the fused operator, which makes them anew from its range at each call.

    least, most: float32 (n,). torch itself computes them, on a tensor of one element a row.
    """
    rows = len(least)
    scale, zero_point = torch.ones(rows), torch.zeros(rows, dtype=torch.int32)
    off, on = torch.tensor([0]), torch.tensor([1])
    torch.fused_moving_avg_obs_fake_quant(
        torch.zeros(rows, 1), off, on, torch.tensor(least), torch.tensor(most), scale, zero_point,
        0.01, qmin, qmax, 0, rows > 1, symmetric,
    )  # fmt: skip
    return scale.numpy(), zero_point.numpy()


def with_mask(convert: Callable[[Writer, Node], Expr], results: int) -> Callable[[Writer, Node], object]:
    """The form with further results (a mask for the gradient, statistics), which are not given."""
    return lambda write, node: [convert(write, node), *[None] * (results - 1)]


def _axis(node: Node, name: str) -> int | None:
    return node.whole(name) if name in node.args else None


def _simulated(data: Expr, params: QParams, formula: str = _ROUNDING) -> Expr:
    return build.fake_quantize(data, params.check_axis(shape_of(data) or ()), formula)


def quantize(_write: Writer, node: Node) -> Expr:
    """quantized_decomposed.quantize_per_tensor and per_channel: float -> integers."""
    return build.quantize(node.tensor("input"), _decomposed(node), _ROUNDING)


def dequantize(_write: Writer, node: Node) -> Expr:
    out_dtype = node.args.get("out_dtype") or "float32"
    return build.dequantize(node.tensor("input"), _decomposed(node), out_dtype)


def _decomposed(node: Node) -> QParams:
    ending = "s" if "axis" in node.args else ""
    params = grid_of(
        node, scale=f"scale{ending}", zero_point=f"zero_point{ending}", axis=_axis(node, "axis"),
        dtype=node.args["dtype"],
    )  # fmt: skip
    return params.check_axis(node.shape("input"))
