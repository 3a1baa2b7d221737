"""What there is to measure: networks, the forms they are quantized in, and the bars of the issue.

No torch here, so that models which are there already can be measured without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Network:
    """size : of square images, or 0 for tokens. widths : factor of the channels."""

    name: str
    family: str
    size: int = 224
    width: float = 1.0


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet18", "resnet18"),
        Network("resnet50", "resnet50"),
        Network("mobilenetv2", "mobilenetv2"),
        Network("resnet8", "resnet8", 32),
        Network("bert", "bert", 0),
        Network("vits", "vits"),
    )
}

FORMS = ("u8s8", "s8s8")
"""Activations uint8 with zero points, or int8 symmetric; weights int8 symmetric, per channel."""


@dataclass(frozen=True)
class Row:
    """One measurement. limits : at most this times the other runtime, by its name."""

    name: str
    network: str
    form: str
    limits: tuple[tuple[str, float], ...]
    batch: int = 1
    tflite: bool = False

    def files(self, folder: Path) -> tuple[Path, Path]:
        """(model, inputs)"""
        return folder / f"{self.network}_{self.form}.onnx", folder / f"{self.network}_inputs.npz"


def _limits(
    openvino: float, onnxruntime: float, litert: float | None = None
) -> tuple[tuple[str, float], ...]:
    found = (("openvino", openvino), ("onnxruntime", onnxruntime))
    return found if litert is None else (*found, ("litert", litert))


ROWS = (
    Row("resnet50", "resnet50", "u8s8", _limits(0.87, 0.78)),
    Row("resnet18", "resnet18", "u8s8", _limits(0.87, 0.78)),
    Row("resnet50-s8", "resnet50", "s8s8", _limits(0.85, 0.30)),
    Row("resnet18-s8", "resnet18", "s8s8", _limits(0.85, 0.30)),
    Row("mobilenetv2", "mobilenetv2", "u8s8", _limits(0.65, 0.52)),
    Row("resnet50-b8", "resnet50", "u8s8", _limits(0.93, 0.83), batch=8),
    Row("bert", "bert", "s8s8", _limits(0.93, 0.15)),
    Row("vits", "vits", "s8s8", _limits(0.88, 0.22)),
    Row("resnet8", "resnet8", "u8s8", _limits(0.50, 0.40, 0.80), tflite=True),
)
