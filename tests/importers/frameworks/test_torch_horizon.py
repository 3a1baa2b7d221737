"""Horizon's symmetric fake quantization as torch modules: scales observed, learned, fixed; 8 and 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.importers.frameworks.torch_check import integer_share, recorded
from tests.importers.frameworks.torch_models import pictures, train
from tests.support.layers import check_layers
from tests.support.run import imported
from tvm_qat import compile as compile_model
from tvm_qat import pipeline

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = pictures(100, 77)[0]
SHAPE = {"x": [100, 3, 8, 8]}


class _FakeQuant(nn.Module):
    """clip(round(x / scale), qmin, qmax) * scale. how : where the scale comes from."""

    def __init__(self, how: str, bits: int = 8, start: float = 0.05) -> None:
        super().__init__()
        self.how, self.low, self.high = how, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = torch.tensor(start * 128 / 2 ** (bits - 1))
        self.scale = nn.Parameter(scale, requires_grad=how == "learned")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.how == "observed":
            with torch.no_grad():
                self.scale.mul_(0.9).add_(0.1 * x.abs().max() / self.high)
        scale = self.scale.abs()  # learning may change its sign
        steps = x / scale
        rounded = torch.round(steps)
        if self.training:  # straight through
            rounded = steps + (rounded - steps).detach()
        return torch.clamp(rounded, self.low, self.high) * scale


class _Net(nn.Module):
    def __init__(self, how: str, bits: int) -> None:
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Linear(128, 4)
        self.quants = nn.ModuleList(_FakeQuant(how, bits, start) for start in (0.03, 0.03, 0.03, 0.1))
        self.weights = nn.ModuleList(_FakeQuant(how, 8, 0.005) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = [
            q(part.weight) for q, part in zip(self.weights, (self.conv, self.deep, self.last), strict=True)
        ]
        x = nn.functional.conv2d(self.quants[0](x), weights[0], self.conv.bias, padding=1)
        x = self.quants[1](torch.relu(x))
        x = self.quants[2](x + nn.functional.conv2d(x, weights[1], self.deep.bias, padding=1, groups=8))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.quants[3](nn.functional.linear(x, weights[2], self.last.bias))


@pytest.mark.parametrize(("how", "bits"), [("observed", 8), ("learned", 8), ("fixed", 8), ("observed", 16)])
def test_every_layer_of_a_trained_network(how: str, bits: int) -> None:
    torch.manual_seed(0)
    model: Any = _Net(how, bits)
    before = [float(part.scale) for part in model.quants]
    train(model.train(), 40, 0.003)
    assert how == "fixed" or [float(part.scale) for part in model.quants] != before
    model.eval()
    layers = recorded(model, IMAGES, _FakeQuant)
    mod = imported(model, input_shapes=SHAPE)
    assert integer_share(mod) == 1
    recognized = pipeline.run(mod, until="canonicalize_fake_quant")
    check_layers(recognized, {"x": IMAGES.numpy()}, layers)
    (found,) = compile_model(mod).run({"x": IMAGES.numpy()}).values()
    np.testing.assert_array_equal(found.argmax(1), layers[-1].argmax(1))
