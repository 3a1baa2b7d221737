"""The demo networks as tables: one row a layer, read by the simulation and by the exporter alike.

A single description is what keeps the trained network and the exported graph the same network;
neither reader knows a layer that the other does not.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]

IMAGE = "image"
IMAGE_SHAPE: Shape = (1, 16, 16)
CLASSES = 10


@dataclass(frozen=True)
class Layer:
    """One row. `name` is also the ONNX node's name; `inputs` are names of earlier rows."""

    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int = 0  # outputs of conv, gemm and matmul; the others derive theirs
    kernel: int = 1  # conv and depthwise pad to keep the size; pools have stride = kernel
    activation: str = ""  # "", "relu" or "relu6"


@dataclass(frozen=True)
class Spec:
    """A network and the scheme of its fake quantization.

    `signed`: activations are symmetric int8, else asymmetric uint8 (weights are always symmetric
    per-channel int8). `batch`: the ONNX batch dimension, a number or a name. `softmax`: a float
    Softmax follows the last dequantize.
    """

    name: str
    layers: tuple[Layer, ...]
    signed: bool
    batch: int | str
    softmax: bool

    @property
    def head(self) -> str:
        """The layer that yields the logits."""
        return self.layers[-1].name

    @property
    def output(self) -> str:
        return "probabilities" if self.softmax else "logits"


# Weights and a bias; only these have parameters.
WEIGHTED = ("conv", "depthwise", "gemm", "matmul")
# Their results are values of their input, so they keep its scale and zero point.
SAME_GRID = ("max_pool", "flatten")


# No activation follows the add: its result is of both signs, so the padding of `branch/wide` has a
# zero point other than the end of the range. `branch/wide` and `branch/narrow` have their own
# scales, so the concat requantizes.
CNN = Spec(
    name="digits_cnn",
    signed=False,
    batch=1,
    softmax=False,
    layers=(
        Layer("stem/conv", "conv", (IMAGE,), 16, kernel=3, activation="relu"),
        Layer("stem/pool", "max_pool", ("stem/conv",), kernel=2),
        Layer("block1/depthwise", "depthwise", ("stem/pool",), kernel=3, activation="relu6"),
        Layer("block1/pointwise", "conv", ("block1/depthwise",), 24, activation="relu"),
        Layer("block2/conv1", "conv", ("block1/pointwise",), 32, kernel=3, activation="relu"),
        Layer("block2/conv2", "conv", ("block2/conv1",), 24, kernel=3),
        Layer("block2/add", "add", ("block1/pointwise", "block2/conv2")),
        Layer("branch/narrow", "conv", ("block2/add",), 16, activation="relu"),
        Layer("branch/wide", "conv", ("block2/add",), 24, kernel=3, activation="relu"),
        Layer("branch/concat", "concat", ("branch/narrow", "branch/wide")),
        Layer("branch/pool", "average_pool", ("branch/concat",), kernel=2),
        Layer("head/conv", "conv", ("branch/pool",), 48, activation="relu"),
        Layer("head/pool", "global_average_pool", ("head/conv",)),
        Layer("head/flatten", "flatten", ("head/pool",)),
        Layer("head/linear", "gemm", ("head/flatten",), CLASSES),
    ),
)

MLP = Spec(
    name="digits_mlp",
    signed=True,
    batch="batch",
    softmax=True,
    layers=(
        Layer("flatten", "flatten", (IMAGE,)),
        Layer("fc1", "matmul", ("flatten",), 64, activation="relu"),
        Layer("fc2", "matmul", ("fc1",), 32, activation="relu"),
        Layer("fc3", "matmul", ("fc2",), CLASSES),
    ),
)


def shapes(spec: Spec) -> dict[str, Shape]:
    """The shape of every value without its batch dimension: (C, H, W) or (features,)."""
    known: dict[str, Shape] = {IMAGE: IMAGE_SHAPE}
    for layer in spec.layers:
        known[layer.name] = _shape(layer, [known[name] for name in layer.inputs])
    return known


def _shape(layer: Layer, inputs: list[Shape]) -> Shape:
    first = inputs[0]
    match layer.op:
        case "conv":
            return (layer.channels, *first[1:])
        case "gemm" | "matmul":
            return (layer.channels,)
        case "depthwise" | "add":
            return first
        case "concat":
            return (sum(shape[0] for shape in inputs), *first[1:])
        case "max_pool" | "average_pool":
            return (first[0], first[1] // layer.kernel, first[2] // layer.kernel)
        case "global_average_pool":
            return (first[0], 1, 1)
        case "flatten":
            size = 1
            for extent in first:
                size *= extent
            return (size,)
    raise ValueError(f"layer '{layer.name}': unknown op '{layer.op}'")


def grids(spec: Spec) -> dict[str, str]:
    """For every value, the name of the value whose scale and zero point it has."""
    owner = {IMAGE: IMAGE}
    for layer in spec.layers:
        shares = layer.op in SAME_GRID
        owner[layer.name] = owner[layer.inputs[0]] if shares else layer.name
    return owner
