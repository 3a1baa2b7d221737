"""Small networks that are trained for real, and what torch itself makes of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub

CLASSES = 4
SIDE = 8


def pictures(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures [count, 3, 8, 8] of one of four bright quarters, and which one."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    half = SIDE // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = half * (label // 2), half * (label % 2)
        image[:, row : row + half, column : column + half] += 1
    return images, labels


class Net(nn.Module):
    """Convolutions with batch norm, a depthwise one, a residual, pooling, a linear layer."""

    def __init__(self, stubs: bool = False) -> None:
        super().__init__()
        self.quant = QuantStub() if stubs else nn.Identity()
        self.dequant = DeQuantStub() if stubs else nn.Identity()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.deep_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 12, 1)
        self.wide_relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(12 * 16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(self.quant(x))))
        x = self.deep_norm(self.deep(x))
        x = self.pool(self.wide_relu(self.wide(x)))
        return self.dequant(self.last(torch.flatten(x, 1)))


def train(model: nn.Module, steps: int = 30, lr: float = 0.02, seed: int = 0) -> None:
    """A few steps of Adam: seconds, and the network is right nearly always."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    for step in range(steps):
        images, labels = pictures(64, 1000 * seed + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def outputs(model: object, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(images).numpy()
