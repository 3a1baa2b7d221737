"""Fake quantization with the arithmetic of ONNX QuantizeLinear, and a straight-through gradient.

    q = saturate(round_half_to_even(x / scale) + zero_point)        y = (q - zero_point) * scale

It is written out, not taken from `torch.fake_quantize_per_*_affine`: those multiply by 1/scale, and
the per-channel one rounds ties away from zero, so the exported graph would be a slightly other
network than the trained one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.05  # of the moving ranges, per batch


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of one tensor; per channel, `scale` broadcasts against the tensor."""

    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int

    def quantize(self, x: Tensor) -> Tensor:
        """Integers, held in a float tensor."""
        return torch.clamp(torch.round(x / self.scale) + self.zero_point, self.qmin, self.qmax)

    def fake_quantize(self, x: Tensor) -> Tensor:
        y: Tensor = _StraightThrough.apply(x, self)  # type: ignore[no-untyped-call]
        return y


class _StraightThrough(torch.autograd.Function):
    """Rounding passes the gradient, saturation stops it.

    The usual `x + (y - x).detach()` is not exactly y in float32; this is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        free = torch.round(x / grid.scale) + grid.zero_point
        ctx.save_for_backward((free >= grid.qmin) & (free <= grid.qmax))
        return (grid.quantize(x) - grid.zero_point) * grid.scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def weight_grid(weight: Tensor) -> Grid:
    """Symmetric int8 per output channel (axis 0), narrow range: -128 is not used."""
    dims = tuple(range(1, weight.dim()))
    largest = weight.detach().abs().amax(dim=dims, keepdim=True).clamp_min(1e-8)
    return Grid(largest / 127, torch.zeros(()), -127, 127)


def bias_grid(input_scale: Tensor, weight_scale: Tensor) -> Grid:
    """int32 in units of the accumulator: input scale times the channel's weight scale."""
    scale = (input_scale * weight_scale).flatten()
    return Grid(scale, torch.zeros(()), -(2**31), 2**31 - 1)


class Range(nn.Module):
    """The moving range of one activation, from which its grid follows."""

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Zero always stays inside: padding and ReLU need it to be exact."""
        low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)
        momentum = MOMENTUM if self.seen else 1.0
        self.low.lerp_(low, momentum)
        self.high.lerp_(high, momentum)
        self.seen.fill_(True)

    def grid(self) -> Grid:
        if self.signed:
            largest = torch.maximum(-self.low, self.high).clamp_min(1e-8)
            return Grid(largest / 127, torch.zeros(()), -128, 127)
        scale = (self.high - self.low).clamp_min(1e-8) / 255
        return Grid(scale, torch.round(-self.low / scale).clamp(0, 255), 0, 255)
