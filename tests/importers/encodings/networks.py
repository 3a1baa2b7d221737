"""Small float networks, with the encodings that quantization-aware training would leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from tests.importers.encodings.aimet import Grid, asymmetric, of_weight, symmetric
from tests.support.onnx_models import model, node
from tests.support.run import onnxruntime_outputs, random_inputs

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """weights: name -> axis of the output channels. activations: tensors with encodings."""

    model: ModelProto
    constants: Weights
    weights: Mapping[str, int]
    activations: tuple[str, ...]

    def grids(self, bits: int = 8, *, channels: bool = True, strict: bool = False, like: str = "asymmetric"):
        """like: asymmetric, symmetric or unsigned (where a tensor is not negative)."""
        probed = probe(self.model, self.activations)
        found: dict[str, Grid] = {}
        for name in self.activations:
            low, high = min(0.0, float(probed[name].min())), float(probed[name].max())
            if like == "asymmetric":
                found[name] = asymmetric(low, high, max(bits, 8))
            else:
                unsigned = like == "unsigned" and low == 0
                reach = max(-low, high)
                found[name] = symmetric(
                    reach, max(bits, 8), strict=strict and not unsigned, unsigned=unsigned
                )
        for name, axis in self.weights.items():
            found[name] = of_weight(self.constants[name], axis if channels else None, bits, strict=strict)
        return found


def probe(made: ModelProto, names: tuple[str, ...], seed: int = 1) -> dict[str, np.ndarray]:
    """The values of inner tensors on random inputs."""
    inputs = random_inputs(made, seed)
    wider = ModelProto()
    wider.CopyFrom(made)
    outputs = {output.name for output in made.graph.output}
    wider.graph.output.extend(
        type(made.graph.output[0])(name=n) for n in names if n not in {*inputs, *outputs}
    )
    return {**inputs, **onnxruntime_outputs(wider, inputs)}


def convolutional(batch: int = 100) -> Network:
    """conv, relu, depthwise conv, residual add, transposed conv, pooling, gemm."""
    rng = np.random.default_rng(5)
    shapes = {
        "conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (8, 1, 3, 3), "conv2.bias": (8,),
        "up.weight": (8, 6, 2, 2), "up.bias": (6,), "fc.weight": (10, 6), "fc.bias": (10,),
    }  # fmt: skip
    constants = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("Conv", "image conv1.weight conv1.bias", "c1", "/conv1/Conv", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", "/relu1/Relu"),
        node("Conv", "r1 conv2.weight conv2.bias", "c2", "/conv2/Conv", pads=[1, 1, 1, 1], group=8),
        node("Add", "c2 r1", "a", "/add/Add"),
        node("ConvTranspose", "a up.weight up.bias", "u", "/up/ConvTranspose", strides=[2, 2]),
        node("Relu", "u", "r2", "/relu2/Relu"),
        node("GlobalAveragePool", "r2", "p", "/pool/GlobalAveragePool"),
        node("Flatten", "p", "f", "/flatten/Flatten"),
        node("Gemm", "f fc.weight fc.bias", "logits", "/fc/Gemm", transB=1),
    ]
    made = model(nodes, {"image": (batch, 3, 8, 8)}, ["logits"], constants, opset=17)
    weights = {"conv1.weight": 0, "conv2.weight": 0, "up.weight": 1, "fc.weight": 0}
    return Network(made, constants, weights, ("image", "r1", "c2", "a", "r2", "p", "logits"))


def transformer_block(batch: int = 100) -> Network:
    """MatMul with a constant right side (as it is, and behind a Transpose), softmax of a product."""
    rng = np.random.default_rng(6)
    shapes = {"q.weight": (16, 16), "k.weight": (16, 16), "v.weight": (16, 16)}
    constants = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("MatMul", "x q.weight", "q", "/q/MatMul"),
        node("Transpose", "k.weight", "kT", "/k/Transpose", perm=[1, 0]),
        node("MatMul", "x kT", "k", "/k/MatMul"),
        node("MatMul", "x v.weight", "v", "/v/MatMul"),
        node("Transpose", "k", "kt", "/kt/Transpose", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s", "/s/MatMul"),
        node("Softmax", "s", "p", "/softmax/Softmax", axis=-1),
        node("MatMul", "p v", "y", "/y/MatMul"),
    ]
    made = model(nodes, {"x": (batch, 6, 16)}, ["y"], constants, opset=17)
    return Network(
        made, constants, {"q.weight": 1, "k.weight": 0, "v.weight": 1}, ("x", "q", "k", "v", "s", "p", "y")
    )


NETWORKS: dict[str, Callable[[], Network]] = {"cnn": convolutional, "attention": transformer_block}
