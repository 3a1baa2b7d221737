"""Every float operator alone: what torch computes, and what the imported module does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.run import imported
from tvm_qat.verification.evaluate import evaluate_module

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


class _Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


_IMAGE = (2, 4, 6, 8)
_W = _random(6, 4, 3, 3, seed=1)
_MATRIX = _random(5, 8, seed=2)
_ROW = _random(8, seed=3)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "abs": (torch.abs, _IMAGE),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 2), (2, 3, 8)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), _IMAGE),
    "adaptive_avg_pool2d_parts": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), _IMAGE),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), _IMAGE),
    "add": (lambda x: x + 1, _IMAGE),
    "add_alpha": (lambda x: torch.add(x, x, alpha=2), _IMAGE),
    "addmm": (lambda x: torch.addmm(_ROW, x, _MATRIX), (3, 5)),
    "amax": (lambda x: x.amax((2, 3), keepdim=True), _IMAGE),
    "amin": (lambda x: x.amin(1), _IMAGE),
    "argmax": (lambda x: x.argmax(1), _IMAGE),
    "argmin": (lambda x: x.argmin(-1, keepdim=True), _IMAGE),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), (2, 3, 8)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), _IMAGE),
    "avg_pool2d_inside": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), _IMAGE),
    "batch_norm": (lambda x: F.batch_norm(x, _ROW[:4], _ROW[4:].abs()), _IMAGE),
    "batch_norm_bare": (lambda x: F.batch_norm(x, _ROW[:4], _ROW[4:].abs(), _ROW[:4], None), _IMAGE),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), (2, 3, 5)),
    "cat": (lambda x: torch.cat([x, x * 2], 1), _IMAGE),
    "ceil": (torch.ceil, _IMAGE),
    "chunk": (lambda x: torch.cat(torch.chunk(x, 3, 1)[::-1], 1), (2, 8, 3)),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), _IMAGE),
    "clamp_max": (lambda x: x.clamp(max=0.5), _IMAGE),
    "clamp_min": (lambda x: torch.clamp_min(x, 0.5), _IMAGE),
    "clamp_tensor": (lambda x: torch.clamp(x, min=_ROW, max=_ROW + 1), _IMAGE),
    "conv1d": (lambda x: F.conv1d(x, _W[..., 0], stride=2, padding=1), (2, 4, 9)),
    "conv2d": (lambda x: F.conv2d(x, _W, _ROW[:6], 2, 1, 1), _IMAGE),
    "conv2d_same": (lambda x: F.conv2d(x, _W[..., :2], padding="same"), _IMAGE),
    "conv2d_groups": (lambda x: F.conv2d(x, _W[:4, :1], groups=4, dilation=2), _IMAGE),
    "conv3d": (lambda x: F.conv3d(x, _W[:, :, None]), (1, 4, 2, 5, 5)),
    "conv_transpose2d": (
        lambda x: F.conv_transpose2d(x, _W[:4], stride=2, padding=1, output_padding=1),
        _IMAGE,
    ),
    "cos": (torch.cos, _IMAGE),
    "div": (lambda x: x / _ROW, _IMAGE),
    "dropout": (lambda x: F.dropout(x, 0.5, False), _IMAGE),
    "elu": (F.elu, _IMAGE),
    "erf": (torch.erf, _IMAGE),
    "exp": (torch.exp, _IMAGE),
    "expand": (lambda x: x[:, :1].expand(-1, 3, -1, -1), _IMAGE),
    "flatten": (lambda x: torch.flatten(x, 1, 2), _IMAGE),
    "flip": (lambda x: x.flip((1, 3)), _IMAGE),
    "floor": (torch.floor, _IMAGE),
    "floor_divide": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), _IMAGE),
    "gelu": (F.gelu, _IMAGE),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), _IMAGE),
    "group_norm": (lambda x: F.group_norm(x, 2, _ROW[:4], _ROW[4:]), _IMAGE),
    "hardsigmoid": (F.hardsigmoid, _IMAGE),
    "hardswish": (F.hardswish, _IMAGE),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 1), _IMAGE),
    "layer_norm": (lambda x: F.layer_norm(x, (8,), _ROW, _ROW), _IMAGE),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), _IMAGE),
    "linear": (lambda x: F.linear(x, _MATRIX, _ROW[:5]), (3, 8)),
    "log": (lambda x: torch.log(x.abs()), _IMAGE),
    "log_softmax": (lambda x: F.log_softmax(x, 1), _IMAGE),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1.0), _IMAGE),
    "matmul": (lambda x: x @ _MATRIX.t(), _IMAGE),
    "max": (lambda x: torch.max(x, 1).values, _IMAGE),
    "max_all": (torch.max, _IMAGE),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), (2, 3, 8)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), _IMAGE),
    "maximum": (lambda x: torch.maximum(x, _ROW), _IMAGE),
    "mean": (lambda x: x.mean((2, 3)), _IMAGE),
    "minimum": (lambda x: torch.minimum(x, _ROW), _IMAGE),
    "mish": (F.mish, _IMAGE),
    "mul": (lambda x: x * _ROW, _IMAGE),
    "neg": (torch.neg, _IMAGE),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), _IMAGE),
    "pad_reflect": (lambda x: F.pad(x, (1, 2, 1, 1), "reflect"), _IMAGE),
    "pad_replicate": (lambda x: F.pad(x, (1, 2, 1, 1), "replicate"), _IMAGE),
    "permute": (lambda x: x.permute(0, 2, 3, 1), _IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), _IMAGE),
    "pow": (lambda x: x**2, _IMAGE),
    "pow_3": (lambda x: x.abs() ** 1.5, _IMAGE),
    "prelu": (lambda x: F.prelu(x, _ROW[:4].abs()), _IMAGE),
    "reciprocal": (torch.reciprocal, _IMAGE),
    "relu": (torch.relu, _IMAGE),
    "relu6": (F.relu6, _IMAGE),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), _IMAGE),
    "reshape": (lambda x: x.reshape(2, -1, 12), _IMAGE),
    "round": (lambda x: torch.round(x * 4), _IMAGE),
    "rsqrt": (lambda x: torch.rsqrt(x.abs() + 1), _IMAGE),
    "rsub": (lambda x: 1 - x, _IMAGE),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), _IMAGE),
    "select": (lambda x: x[:, -1], _IMAGE),
    "sigmoid": (torch.sigmoid, _IMAGE),
    "silu": (F.silu, _IMAGE),
    "sin": (torch.sin, _IMAGE),
    "slice": (lambda x: x[:, 1:-1, ::2], _IMAGE),
    "softmax": (lambda x: torch.softmax(x, 1), _IMAGE),
    "softplus": (F.softplus, _IMAGE),
    "split": (lambda x: torch.cat(torch.split(x, 3, 3)[1:], 3), _IMAGE),
    "split_with_sizes": (lambda x: torch.split(x, [1, 3], 1)[1], _IMAGE),
    "sqrt": (lambda x: x.abs().sqrt(), _IMAGE),
    "squeeze": (lambda x: x[:, :1].squeeze(1), _IMAGE),
    "stack": (lambda x: torch.stack([x, x + 1], 2), _IMAGE),
    "sub": (lambda x: x - _ROW, _IMAGE),
    "sum": (lambda x: x.sum(1, keepdim=True), _IMAGE),
    "t": (lambda x: x.t(), (3, 4)),
    "tanh": (torch.tanh, _IMAGE),
    "to": (lambda x: (x > 0).to(torch.float32), _IMAGE),
    "transpose": (lambda x: x.transpose(1, 3), _IMAGE),
    "unflatten": (lambda x: x.unflatten(1, (2, 2)), _IMAGE),
    "unsqueeze": (lambda x: x.unsqueeze(-1), _IMAGE),
    "upsample_bilinear2d": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), _IMAGE),
    "upsample_nearest2d": (lambda x: F.interpolate(x, scale_factor=2), _IMAGE),
    "view": (lambda x: x.view(2, 4, 48), _IMAGE),
    "where": (lambda x: torch.where(x > 0, x, x * 0.5), _IMAGE),
}


CORE = (
    "addmm", "batch_norm", "conv2d", "gelu", "group_norm", "hardswish", "layer_norm", "linear",
    "max_pool2d", "mean", "mish", "pad", "softmax", "to", "where",
)  # fmt: skip
"""Operators of which torch.export's default decompositions make others."""


@pytest.mark.parametrize("name", CASES)
def test_operator_computes_what_torch_does(name: str) -> None:
    function, shape = CASES[name]
    data = _random(*shape)
    _check(torch.export.export(_Call(function), (data,)), data, function(data))


@pytest.mark.parametrize("name", CORE)
def test_decomposed_operator_computes_the_same(name: str) -> None:
    function, shape = CASES[name]
    data = _random(*shape)
    program = torch.export.export(_Call(function), (data,)).run_decompositions()
    _check(program, data, function(data))


def _check(program: Any, data: torch.Tensor, result: torch.Tensor) -> None:
    expected = result.numpy()
    found = evaluate_module(imported(program), [data.numpy()])[0]
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_embedding() -> None:
    indices = torch.tensor([[0, 3], [4, 1]])
    program = torch.export.export(_Call(lambda i: F.embedding(i, _MATRIX)), (indices,))
    found = evaluate_module(imported(program), [indices.numpy()])[0]
    np.testing.assert_array_equal(found, _MATRIX[indices].numpy())
