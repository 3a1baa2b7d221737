"""Small networks trained by quantization-aware training, and what torch computes inside of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as aq
from torch.ao.nn.quantized import FloatFunctional

SHAPE = (100, 2, 12, 12)


@contextmanager
def quiet() -> Iterator[None]:
    """torch.ao and TorchScript are deprecated, and say so in every second call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Eager(nn.Module):
    """Convolutions with batch norm, a depthwise one, a residual sum, a linear layer: all quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = aq.QuantStub(), aq.DeQuantStub()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.bn, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn2 = nn.BatchNorm2d(8)
        self.sum = FloatFunctional()
        self.narrow = nn.Conv2d(8, 4, 3, stride=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.bn(self.conv(self.quant(x)))))
        x = self.sum.add_relu(x, self.bn2(self.depthwise(x)))
        x = torch.flatten(self.narrow(x), 1)
        return self.dequant(self.fc(x))


class Plain(nn.Module):
    """For FX, which finds by itself what to quantize; average pooling over 3x3, which has no ties."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.act = nn.Hardswish()
        self.gap, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 5)

    def forward(self, x):  # an annotation cannot be scripted after FX
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.cat([self.left(x), self.act(self.right(x))], 1)
        x = nn.functional.max_pool2d(x, 2)
        return self.fc(torch.flatten(self.gap(x), 1))


def data(seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def trained(model: nn.Module) -> nn.Module:
    """A few steps towards telling five kinds of stripes apart."""
    labels = torch.arange(100) % 5
    waves = torch.stack([torch.sin(torch.arange(12) * (k + 1) / 2) for k in range(5)])
    images = data() * 0.3 + waves[labels][:, None, None, :]
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    model.apply(aq.disable_observer)
    return model


def eager_qat(scheme: str = "fbgemm") -> nn.Module:
    torch.manual_seed(0)
    model = Eager().train()
    aq.fuse_modules_qat(model, [["conv", "bn", "relu"], ["depthwise", "bn2"]], inplace=True)
    model.qconfig = aq.get_default_qat_qconfig(scheme, version=0)
    return trained(aq.prepare_qat(model))


def fx_qat() -> nn.Module:
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    torch.manual_seed(0)
    mapping = aq.get_default_qat_qconfig_mapping("fbgemm").set_global(
        aq.get_default_qat_qconfig("fbgemm", version=0)
    )
    return trained(prepare_qat_fx(Plain().train(), mapping, data()))


def converted(model: nn.Module) -> nn.Module:
    return aq.convert(copy.deepcopy(model).eval())


def images() -> torch.Tensor:
    """100 images that training did not see."""
    labels = torch.arange(100) % 5
    waves = torch.stack([torch.sin(torch.arange(12) * (k + 1) / 2) for k in range(5)])
    return data(2) * 0.3 + waves[labels][:, None, None, :]


def fake_quantized(model: nn.Module, x: torch.Tensor) -> list[tuple[float, np.ndarray]]:
    """(scale, output) of every FakeQuantize of an activation, in the order in which they run."""
    seen: list[tuple[float, Any]] = []

    def keep(module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if module.scale.numel() == 1 and output.shape[0] == SHAPE[0]:
            seen.append((float(module.scale), output.detach().numpy()))

    parts = [part for part in model.modules() if isinstance(part, aq.FakeQuantize)]
    hooks = [part.register_forward_hook(keep) for part in parts]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen
