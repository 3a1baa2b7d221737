"""Convolutional networks with the shapes of the published ones, and random weights.

Speed depends on shapes alone, so nothing is trained. `width` scales the channels, as in MobileNet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 1000
_MULTIPLE = 8


def channels(count: int, width: float) -> int:
    return max(_MULTIPLE, round(count * width / _MULTIPLE) * _MULTIPLE)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, act: nn.Module | None):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act] if act is not None else []))


class Residual(nn.Module):
    """A branch beside an identity, or beside a convolution where the shape changes, then ReLU."""

    def __init__(self, branch: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and inputs == outputs
        self.branch = branch
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=None)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.shortcut(x))


def basic(inputs: int, outputs: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        conv(inputs, outputs, 3, stride, act=nn.ReLU()), conv(outputs, outputs, 3, act=None)
    )
    return Residual(branch, inputs, outputs, stride)


def bottleneck(inputs: int, outputs: int, stride: int) -> nn.Module:
    middle = outputs // 4
    branch = nn.Sequential(
        conv(inputs, middle, 1, act=nn.ReLU()),
        conv(middle, middle, 3, stride, act=nn.ReLU()),
        conv(middle, outputs, 1, act=None),
    )
    return Residual(branch, inputs, outputs, stride)


class Classifier(nn.Module):
    def __init__(self, body: nn.Module, features: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.body = body
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.body(x)), 1))


def resnet(counts: tuple[int, ...], *, deep: bool, width: float = 1.0) -> nn.Module:
    """ResNet-18 is (2, 2, 2, 2); ResNet-50 is (3, 4, 6, 3) with `deep`, that is bottlenecks."""
    block, last = (bottleneck, 4) if deep else (basic, 1)
    size = channels(64, width)
    layers: list[nn.Module] = [conv(3, size, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(counts):
        outputs = channels(64 << stage, width) * last
        for place in range(count):
            layers.append(block(size, outputs, 2 if place == 0 and stage else 1))
            size = outputs
    return Classifier(nn.Sequential(*layers), size)


def resnet8() -> nn.Module:
    """MLPerf Tiny's image classifier, 32x32."""
    layers = [conv(3, 16, 3, act=nn.ReLU()), basic(16, 16, 1), basic(16, 32, 2), basic(32, 64, 2)]
    return Classifier(nn.Sequential(*layers), 64, 10)


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [conv(inputs, hidden, 1, act=nn.ReLU6())] if expansion > 1 else []
        depthwise = conv(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6())
        self.body = nn.Sequential(*expand, depthwise, conv(hidden, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


# (expansion, channels, count, stride) of each stage: table 2 of the MobileNetV2 paper.
_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(width: float = 1.0) -> nn.Module:
    size = channels(32, width)
    layers: list[nn.Module] = [conv(3, size, 3, 2, act=nn.ReLU6())]
    for expansion, outputs, count, stride in _STAGES:
        for place in range(count):
            wanted = channels(outputs, width)
            layers.append(Inverted(size, wanted, stride if place == 0 else 1, expansion))
            size = wanted
    last = max(1280, channels(1280, width))
    layers.append(conv(size, last, 1, act=nn.ReLU6()))
    return Classifier(nn.Sequential(*layers), last)
