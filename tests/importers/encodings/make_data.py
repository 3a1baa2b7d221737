"""Makes `data/`: networks trained by AIMET itself, as it exports them, and what its simulation computes.

Not run by the tests: it needs `pip install aimet-torch torchvision` (data made with aimet-torch 2.42,
torch 2.13). `python tests/importers/encodings/make_data.py` takes about half a minute.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
KINDS: dict[str, dict[str, Any]] = {
    "learned": {
        "strict_symmetric": "False",
        "unsigned_symmetric": "False",
        "per_channel_quantization": "True",
    },
    "fixed": {
        "strict_symmetric": "False",
        "unsigned_symmetric": "False",
        "per_channel_quantization": "False",
    },
}
"""`learned`: ranges are trained with the weights. `fixed`: they stay as they were observed."""


def inputs(count: int = 100, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def make() -> None:
    import torch
    from aimet_torch.batch_norm_fold import fold_all_batch_norms

    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = torch.from_numpy(inputs(512, 1))
    labels = (data.mean((2, 3)) @ torch.randn(3, 10)).argmax(1)
    net = network(torch)
    _train(torch, net, data, labels, 100, 1e-2)
    net.eval()
    fold_all_batch_norms(net, input_shapes=(1, 3, 8, 8), dummy_input=data[:1])
    for kind, defaults in KINDS.items():
        _simulate(torch, net, kind, defaults, data, labels)


def _simulate(torch: Any, net: Any, kind: str, defaults: dict[str, Any], data: Any, labels: Any) -> None:
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(net, dummy_input=data[:1], config_file=_config(defaults))
    sim.compute_encodings(lambda model: model(data[:256]))
    for module in sim.model.modules():
        if kind == "fixed" and "Quantize" in type(module).__name__ and hasattr(module, "min"):
            module.requires_grad_(False)
    sim.model.train()
    _train(torch, sim.model, data, labels, 60, 1e-3)
    sim.model.eval()
    layers = _quantized(torch, sim.model)
    np.savez_compressed(DATA / f"{kind}_layers.npz", *layers)
    sim.save_encodings_to_json(str(DATA), f"{kind}_torch")
    (DATA / f"{kind}_torch.json").rename(DATA / f"{kind}_torch.encodings")
    for version in ("0.6.1", "1.0.0", "2.0.0"):
        path = DATA / f"{kind}_{version}.onnx"
        axes = {"image": {0: "n"}, "logits": {0: "n"}}
        sim.onnx.export(
            (data[:1],), str(path), input_names=["image"], output_names=["logits"], encoding_version=version,
            dynamo=False, opset_version=13, dynamic_axes=axes, export_int32_bias=False,
        )  # fmt: skip
        path.rename(DATA / f"{kind}.onnx")


def _quantized(torch: Any, model: Any) -> list[Any]:
    """The steps of every activation that AIMET quantizes, in the order in which it does: int16."""
    found: list[Any] = []

    def keep(module: Any, _inputs: Any, output: Any) -> None:
        if len(output) == len(inputs()):
            steps = output.as_subclass(torch.Tensor).double() / module.get_scale().double()
            found.append(steps.round().to(torch.int16).numpy())

    hooks = [
        part.register_forward_hook(keep)
        for part in model.modules()
        if type(part).__name__ == "QuantizeDequantize"
    ]
    with torch.no_grad():
        model(torch.from_numpy(inputs()))
    for hook in hooks:
        hook.remove()
    return found


def _config(defaults: dict[str, Any]) -> str:
    ops = {"is_output_quantized": "True"}
    content = {
        "defaults": {"ops": ops, "params": {"is_quantized": "True", "is_symmetric": "True"}, **defaults},
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {},
        "supergroups": [{"op_list": ["Conv", "Relu"]}, {"op_list": ["ConvTranspose", "Relu"]}],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(content, file)
    return file.name


def _train(torch: Any, net: Any, data: Any, labels: Any, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        chosen = torch.randint(0, len(data), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(data[chosen]), labels[chosen]).backward()
        optimizer.step()


def network(torch: Any) -> Any:
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
            self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU6(), nn.ReLU()
            self.up, self.pool, self.fc = nn.ConvTranspose2d(8, 6, 2, 2), nn.AvgPool2d(4), nn.Linear(96, 10)

        def forward(self, x: Any) -> Any:
            x = self.relu1(self.bn1(self.conv1(x)))
            x = self.relu2(self.bn2(self.conv2(x)))
            x = self.relu3(self.up(x))
            return self.fc(torch.flatten(self.pool(x), 1))

    return Net()


if __name__ == "__main__":
    sys.exit(make())
