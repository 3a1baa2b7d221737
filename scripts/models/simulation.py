"""A network of `nets.py` in torch: in float with BatchNorm, then with fake quantization.

Quantization-aware fine-tuning sees the network as it will be deployed: BatchNorm folded into the
weights *before* they are fake-quantized, the bias on the accumulator's int32 grid. The statistics
of BatchNorm are frozen by then; its gamma and beta train on, inside the folded weights.

    w = weight * gamma / sqrt(var + eps)        b = beta - mean * gamma / sqrt(var + eps)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fake_quant import Grid, Range, bias_grid, weight_grid
from models.nets import IMAGE, WEIGHTED, Layer, Shape, Spec, grids, shapes


@dataclass(frozen=True)
class Deployed:
    """Weight and bias of one layer with BatchNorm folded, and the grids they are stored on."""

    weight: Tensor
    bias: Tensor
    weight_grid: Grid
    bias_grid: Grid


class Simulation(nn.Module):
    """`quantized`: fake-quantize at all. `observing`: let the ranges follow the batches."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.quantized = False
        self.observing = False
        self._grid_owner = grids(spec)
        known = shapes(spec)
        self.weights = nn.ModuleDict(
            {
                layer.name: _Weights(layer, known[layer.inputs[0]])
                for layer in spec.layers
                if layer.op in WEIGHTED
            }
        )
        owners = dict.fromkeys(self._grid_owner.values())
        self.ranges = nn.ModuleDict({name: Range(spec.signed) for name in owners})

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 16, 16) in 0..1 -> (N, 10) logits."""
        values = {IMAGE: self._store(IMAGE, image)}
        for layer in self.spec.layers:
            operands = [values[name] for name in layer.inputs]
            values[layer.name] = self._store(layer.name, self._compute(layer, operands))
        return values[self.spec.head]

    def predict(self, image: Tensor) -> Tensor:
        """What the exported model returns: logits, or probabilities where it has a Softmax."""
        logits: Tensor = self(image)
        return torch.softmax(logits, dim=1) if self.spec.softmax else logits

    def grid(self, name: str) -> Grid:
        return self._range(self._grid_owner[name]).grid()

    def deployed(self, layer: Layer) -> Deployed:
        weights = self._weights(layer)
        weight, bias = weights.folded()
        on = weight_grid(weight)
        return Deployed(weight, bias, on, bias_grid(self.grid(layer.inputs[0]).scale, on.scale))

    def _range(self, name: str) -> Range:
        found = self.ranges[name]
        assert isinstance(found, Range)
        return found

    def _weights(self, layer: Layer) -> _Weights:
        weights = self.weights[layer.name]
        assert isinstance(weights, _Weights)
        return weights

    def _store(self, name: str, value: Tensor) -> Tensor:
        if self.observing and self._grid_owner[name] == name:
            self._range(name).observe(value)
        return self.grid(name).fake_quantize(value) if self.quantized else value

    def _compute(self, layer: Layer, operands: list[Tensor]) -> Tensor:
        if layer.op in WEIGHTED:
            return _activate(layer, self._weighted(layer, operands[0]))
        return _activate(layer, _unweighted(layer, operands))

    def _weighted(self, layer: Layer, x: Tensor) -> Tensor:
        weights = self._weights(layer)
        if not self.quantized:
            return weights.normalize(weights.apply_to(x, weights.weight, weights.bias))
        deployed = self.deployed(layer)
        return weights.apply_to(
            x,
            deployed.weight_grid.fake_quantize(deployed.weight),
            deployed.bias_grid.fake_quantize(deployed.bias),
        )


class _Weights(nn.Module):
    """Convolutions have a BatchNorm and no bias of their own, linear layers the reverse."""

    def __init__(self, layer: Layer, input_shape: Shape) -> None:
        super().__init__()
        inputs = input_shape[0]
        outputs = inputs if layer.op == "depthwise" else layer.channels
        self.groups = inputs if layer.op == "depthwise" else 1
        self.padding = layer.kernel // 2
        spatial = (layer.kernel, layer.kernel) if layer.op in ("conv", "depthwise") else ()
        self.norm = nn.BatchNorm2d(outputs) if spatial else None
        self.bias = None if spatial else nn.Parameter(torch.zeros(outputs))
        self.weight = nn.Parameter(torch.empty(outputs, inputs // self.groups, *spatial))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def apply_to(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.dim() == 2:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=self.padding, groups=self.groups)

    def normalize(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return x
        y: Tensor = self.norm(x)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        if self.norm is None:
            assert self.bias is not None
            return self.weight, self.bias
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        factor = self.norm.weight / torch.sqrt(variance + self.norm.eps)
        return self.weight * factor.reshape(-1, 1, 1, 1), self.norm.bias - mean * factor


def _unweighted(layer: Layer, operands: list[Tensor]) -> Tensor:
    match layer.op:
        case "add":
            return operands[0] + operands[1]
        case "concat":
            return torch.cat(operands, dim=1)
        case "max_pool":
            return F.max_pool2d(operands[0], layer.kernel)
        case "average_pool":
            return F.avg_pool2d(operands[0], layer.kernel)
        case "global_average_pool":
            return operands[0].mean(dim=(2, 3), keepdim=True)
        case "flatten":
            return operands[0].flatten(1)
    raise ValueError(f"layer '{layer.name}': unknown op '{layer.op}'")


def _activate(layer: Layer, x: Tensor) -> Tensor:
    match layer.activation:
        case "":
            return x
        case "relu":
            return F.relu(x)
        case "relu6":
            return F.relu6(x)
    raise ValueError(f"layer '{layer.name}': unknown activation '{layer.activation}'")
