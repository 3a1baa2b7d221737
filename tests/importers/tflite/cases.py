"""One small model for each operator, quantized as LiteRT wants it: (name, file, steps allowed)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.support.tflite_models import constant, graph, model, one, operator, tensor

Case = tuple[str, bytes, int]
RNG = np.random.default_rng(7)
S, Z = 0.05, 3


def _x(*shape: int, name: str = "x") -> Any:
    return tensor(name, shape, "int8", S, Z)


def _y(*shape: int, scale: float = S, zero: int = Z, name: str = "y") -> Any:
    return tensor(name, shape, "int8", scale, zero)


def _weights(*shape: int, axis: int | None = None) -> Any:
    data = RNG.integers(-127, 128, shape).astype(np.int8)
    scale = 0.01 if axis is None else RNG.uniform(0.002, 0.02, shape[axis]).tolist()
    return constant("w", data, scale, axis=axis or 0)


def _bias(count: int) -> Any:
    return constant("b", RNG.integers(-4000, 4000, count).astype(np.int32), [S * 0.01] * count)


def linear() -> Iterator[Case]:
    for padding, stride, act in ((0, 1, 0), (1, 2, 1), (0, 2, 3)):
        size = 7 if padding == 0 and stride == 1 else (3 if padding else 4)
        fields: dict[str, Any] = {
            "padding": padding,
            "strideH": stride,
            "strideW": stride,
            "fusedActivationFunction": act,
        }
        yield (
            f"conv {padding}{stride}{act}",
            one(
                "CONV_2D",
                [_x(1, 7, 7, 3), _weights(5, 3, 3, 3, axis=0), _bias(5), _y(1, size, size, 5, scale=0.3)],
                "Conv2DOptions",
                dilationHFactor=1,
                dilationWFactor=1,
                **fields,
            ),
            1,
        )
        yield (
            f"depthwise {padding}{stride}{act}",
            one(
                "DEPTHWISE_CONV_2D",
                [_x(1, 7, 7, 3), _weights(1, 3, 3, 6, axis=3), _bias(6), _y(1, size, size, 6, scale=0.3)],
                "DepthwiseConv2DOptions",
                depthMultiplier=2,
                dilationHFactor=1,
                dilationWFactor=1,
                **fields,
            ),
            1,
        )
    yield (
        "dilated conv",
        one(
            "CONV_2D",
            [_x(1, 9, 9, 2), _weights(4, 3, 3, 2), _bias(4), _y(1, 5, 5, 4, scale=0.3)],
            "Conv2DOptions",
            padding=1,
            strideH=1,
            strideW=1,
            dilationHFactor=2,
            dilationWFactor=2,
        ),
        1,
    )
    yield (
        "fully connected",
        one(
            "FULLY_CONNECTED",
            [_x(2, 3, 4), _weights(5, 12), _bias(5), _y(2, 5, scale=0.3)],
            "FullyConnectedOptions",
        ),
        1,
    )
    yield (
        "fully connected of rows",
        one(
            "FULLY_CONNECTED",
            [_x(2, 3, 4), _weights(5, 4), _bias(5), _y(2, 3, 5, scale=0.3)],
            "FullyConnectedOptions",
            keepNumDims=True,
            fusedActivationFunction=1,
        ),
        1,
    )
    for adjoint in (False, True):
        right = (2, 5, 4) if adjoint else (2, 4, 5)
        yield (
            f"batch matmul {adjoint}",
            one(
                "BATCH_MATMUL",
                [_x(2, 3, 4), _x(*right, name="r"), _y(2, 3, 5, scale=0.3)],
                "BatchMatMulOptions",
                adjX=False,
                adjY=adjoint,
            ),
            1,
        )
    for padding, out in ((0, (10, 8)), (1, (11, 9))):
        yield (
            f"transposed conv {padding}",
            one(
                "TRANSPOSE_CONV",
                [
                    constant("s", np.array([1, *out, 3], np.int32)),
                    _weights(3, 3, 3, 2, axis=0),
                    _x(1, 5, 4, 2),
                    _y(1, *out, 3, scale=0.2),
                ],
                "TransposeConvOptions",
                padding=padding,
                strideH=2,
                strideW=2,
            ),
            1,
        )


def pooling() -> Iterator[Case]:
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for padding, size in ((0, 3), (1, 2)):
            yield (
                f"{kind} {padding}",
                one(
                    kind,
                    [_x(1, 5, 5, 4), _y(1, size, size, 4)],
                    "Pool2DOptions",
                    padding=padding,
                    strideH=2,
                    strideW=2,
                    filterHeight=3,
                    filterWidth=3,
                    fusedActivationFunction=1,
                ),
                1,
            )


def elementwise() -> Iterator[Case]:
    for kind, options in (("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions")):
        other = tensor("r", (1, 3, 1, 4), "int8", 0.03, -5)
        yield kind, one(kind, [_x(2, 3, 5, 4), other, _y(2, 3, 5, 4, scale=0.08)], options), 1
        fixed = constant("c", RNG.integers(-128, 128, (4,)).astype(np.int8), 0.03, -5)
        yield (
            f"{kind} constant",
            one(kind, [_x(2, 4), fixed, _y(2, 4, scale=0.08)], options, fusedActivationFunction=1),
            1,
        )
    for kind in ("MAXIMUM", "MINIMUM"):
        yield kind, one(kind, [_x(2, 4), _x(2, 4, name="r"), _y(2, 4)], "MaximumMinimumOptions"), 0
    for kind, scale, zero in (("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)):
        yield kind, one(kind, [_x(4, 64), _y(4, 64, scale=scale, zero=zero)]), 1
    for kind in ("RELU", "RELU6", "RELU_N1_TO_1"):
        yield kind, one(kind, [_x(4, 64), _y(4, 64, scale=0.03, zero=-20)]), 1
    yield "HARD_SWISH", one("HARD_SWISH", [_x(4, 64), _y(4, 64)]), 1
    yield "LEAKY_RELU", one("LEAKY_RELU", [_x(4, 64), _y(4, 64)], "LeakyReluOptions", alpha=0.3), 1
    slopes = constant("a", np.array([10, -20, 30, 0], np.int8).reshape(1, 1, 4), 0.02, 0)
    yield "PRELU", one("PRELU", [_x(1, 3, 5, 4), slopes, _y(1, 3, 5, 4)]), 1
    yield "ABS", one("ABS", [_x(4, 64), _y(4, 64)], "AbsOptions"), 1


def reductions() -> Iterator[Case]:
    axes = constant("a", np.array([1, 2], np.int32))
    for kind in ("MEAN", "REDUCE_MAX", "REDUCE_MIN"):
        for keep in (False, True):
            shape = (2, 1, 1, 4) if keep else (2, 4)
            same = kind.startswith("REDUCE")
            out = _y(*shape) if same else _y(*shape, scale=0.06)
            yield f"{kind} {keep}", one(kind, [_x(2, 5, 3, 4), axes, out], "ReducerOptions", keepDims=keep), 1
    for beta in (1.0, 0.5):
        yield (
            f"SOFTMAX {beta}",
            one("SOFTMAX", [_x(3, 10), _y(3, 10, scale=1 / 256, zero=-128)], "SoftmaxOptions", beta=beta),
            1,
        )
    yield (
        "LOG_SOFTMAX",
        one("LOG_SOFTMAX", [_x(3, 10), _y(3, 10, scale=16 / 256, zero=127)], "LogSoftmaxOptions"),
        1,
    )
    yield (
        "L2_NORMALIZATION",
        one("L2_NORMALIZATION", [_x(3, 10), _y(3, 10, scale=1 / 128, zero=0)], "L2NormOptions"),
        1,
    )
    where = constant("a", np.array(1, np.int32))
    yield (
        "ARG_MAX",
        one("ARG_MAX", [_x(3, 10), where, tensor("y", (3,), "int32")], "ArgMaxOptions", outputType=2),
        0,
    )


def movement() -> Iterator[Case]:
    ints = lambda *v: constant("p", np.array(v, np.int32))  # noqa: E731
    yield "RESHAPE", one("RESHAPE", [_x(2, 6), ints(3, -1), _y(3, 4)], "ReshapeOptions", newShape=[3, 4]), 0
    yield "TRANSPOSE", one("TRANSPOSE", [_x(2, 3, 4), ints(2, 0, 1), _y(4, 2, 3)], "TransposeOptions"), 0
    yield (
        "STRIDED_SLICE",
        one(
            "STRIDED_SLICE",
            [
                _x(5, 6, 4),
                ints(1, -5, 2),
                constant("e", np.array([5, 6, 3], np.int32)),
                constant("s", np.array([2, 1, 1], np.int32)),
                _y(2, 5),
            ],
            "StridedSliceOptions",
            shrinkAxisMask=4,
        ),
        0,
    )
    widths = constant("p", np.array([[0, 1], [2, 0]], np.int32))
    yield "PAD", one("PAD", [_x(2, 3), widths, _y(3, 5)], "PadOptions"), 0
    fill = constant("f", np.array([50], np.int8), S, Z)
    yield "PADV2", one("PADV2", [_x(2, 3), widths, fill, _y(3, 5)], "PadV2Options"), 0
    for mode in (0, 1):
        yield (
            f"MIRROR_PAD {mode}",
            one("MIRROR_PAD", [_x(2, 3), widths, _y(3, 5)], "MirrorPadOptions", mode=mode),
            0,
        )
    yield (
        "SPLIT",
        one(
            "SPLIT",
            [constant("a", np.array(1, np.int32)), _x(2, 6), *[_y(2, 2, name=f"y{i}") for i in range(3)]],
            "SplitOptions",
            outputs=3,
            numSplits=3,
        ),
        0,
    )
    yield (
        "SPLIT_V",
        one(
            "SPLIT_V",
            [_x(2, 6), ints(2, 4), constant("a", np.array(1, np.int32)), _y(2, 2), _y(2, 4, name="y1")],
            "SplitVOptions",
            outputs=2,
            numSplits=2,
        ),
        0,
    )
    yield (
        "PACK",
        one("PACK", [_x(2, 3), _x(2, 3, name="r"), _y(2, 2, 3)], "PackOptions", axis=1, valuesCount=2),
        0,
    )
    yield (
        "UNPACK",
        one("UNPACK", [_x(2, 3), _y(3), _y(3, name="y1")], "UnpackOptions", outputs=2, axis=0, num=2),
        0,
    )
    yield "GATHER", one("GATHER", [_x(5, 3), ints(4, 0, 0), _y(3, 3)], "GatherOptions", axis=0), 0
    yield (
        "CONCATENATION",
        one("CONCATENATION", [_x(2, 3), _x(2, 3, name="r"), _y(2, 6)], "ConcatenationOptions", axis=-1),
        0,
    )
    yield (
        "DEPTH_TO_SPACE",
        one("DEPTH_TO_SPACE", [_x(1, 2, 3, 8), _y(1, 4, 6, 2)], "DepthToSpaceOptions", blockSize=2),
        0,
    )
    yield (
        "SPACE_TO_DEPTH",
        one("SPACE_TO_DEPTH", [_x(1, 4, 6, 2), _y(1, 2, 3, 8)], "SpaceToDepthOptions", blockSize=2),
        0,
    )
    yield "SQUEEZE", one("SQUEEZE", [_x(2, 1, 3, 1), _y(2, 3)], "SqueezeOptions", squeezeDims=[1, 3]), 0
    yield (
        "SLICE",
        one("SLICE", [_x(5, 6), ints(1, 2), constant("n", np.array([3, -1], np.int32)), _y(3, 4)]),
        0,
    )
    yield "TILE", one("TILE", [_x(2, 3), ints(2, 1), _y(4, 3)]), 0


def resizing() -> Iterator[Case]:
    for corners, half in ((False, False), (True, False), (False, True)):
        for size in ((7, 9), (2, 3)):
            place = constant("p", np.array(size, np.int32))
            for kind, name in (
                ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
                ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
            ):
                yield (
                    f"{kind} {corners} {half} {size}",
                    one(
                        kind,
                        [_x(1, 4, 5, 3), place, _y(1, *size, 3)],
                        name,
                        alignCorners=corners,
                        halfPixelCenters=half,
                    ),
                    (0 if "NEAREST" in kind else 1),
                )


def grids() -> Iterator[Case]:
    yield "QUANTIZE", one("QUANTIZE", [tensor("x", (4, 64), "float32"), _y(4, 64)]), 0
    yield "requantize", one("QUANTIZE", [_x(4, 64), tensor("y", (4, 64), "uint8", 0.07, 100)]), 1
    yield "DEQUANTIZE", one("DEQUANTIZE", [_x(4, 64), tensor("y", (4, 64), "float32")]), 0
    wide = [tensor(n, (4, 64), "int16", s) for n, s in (("x", 0.001), ("r", 0.002), ("y", 0.003))]
    yield "ADD of 16 bits", one("ADD", wide, "AddOptions"), 1


def recurrent() -> Iterator[Case]:
    """Three steps of four units; the cell is clipped, the hidden state has a zero point."""
    units, width, hidden, h_scale = 4, 5, -1, 1 / 128
    tensors = [_x(2, 3, width)]
    scales = RNG.uniform(0.01, 0.03, 8).tolist()
    for index, scale in enumerate(scales):
        shape = (units, width if index < 4 else units)
        tensors.append(constant(f"w{index}", RNG.integers(-127, 128, shape).astype(np.int8), scale))
    for index in range(4):
        bias = RNG.integers(-500, 500, units).astype(np.int32)
        tensors.append(constant(f"b{index}", bias, S * scales[index]))
    tensors.append(tensor("h", (2, units), "int8", h_scale, hidden))
    tensors.append(tensor("c", (2, units), "int16", 2.0**-12))
    tensors[-1].isVariable = tensors[-2].isVariable = True
    inner = [tensor(f"i{i}", (), "int16", 2.0**-12) for i in range(4)]
    inner.append(tensor("i4", (), "int8", h_scale, hidden))
    tensors += [*inner, tensor("y", (2, 3, units), "int8", h_scale, hidden)]
    inputs = [0, *range(1, 9), -1, -1, -1, *range(9, 13), -1, -1, 13, 14, -1, -1, -1, -1]
    made = operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        inputs,
        [20],
        "UnidirectionalSequenceLSTMOptions",
        fusedActivationFunction=4,
        cellClip=2.0,
        timeMajor=False,
    )
    made.intermediates = list(range(15, 20))
    yield "UNIDIRECTIONAL_SEQUENCE_LSTM", model(graph(tensors, [made], [0], [20])), 2


CASES: list[Case] = [
    *linear(),
    *pooling(),
    *elementwise(),
    *reductions(),
    *movement(),
    *resizing(),
    *grids(),
    *recurrent(),
]
