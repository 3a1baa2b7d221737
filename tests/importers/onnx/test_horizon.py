"""Horizon's symmetric fake quantization as custom nodes, and written out by exporters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, node
from tests.support.run import imported, onnxruntime_outputs, simulate
from tvm_qat import compile as compile_model
from tvm_qat.errors import InputError
from tvm_qat.ir import bindings_of, op_name
from tvm_qat.verification.evaluate import evaluate_module

F32 = np.float32
DOMAIN = {"horizon": 1, "custom": 1}


def values(*shape: int) -> np.ndarray:
    ties = np.arange(-240, 240) / 16
    return np.concatenate([ties, np.random.default_rng(0).normal(0, 8, 480)]).astype(F32).reshape(shape)


def expected(x: Any, scale: Any, low: int = -128, high: int = 127) -> np.ndarray:
    """clip(round(x / scale), qmin, qmax) * scale in float32."""
    scale = np.asarray(scale, F32)
    return np.clip(np.rint(x / scale), low, high).astype(F32) * scale


def custom(op: str, domain: str = "horizon", scale: Any = None, **attrs: Any) -> Any:
    constants = {} if scale is None else {"s": np.asarray(scale, F32)}
    nodes = [node(op, "x s" if constants else "x", "y", "fq", domain, **attrs)]
    return model(nodes, {"x": (80, 3, 4)}, ["y"], constants, domains=DOMAIN)


@pytest.mark.parametrize(
    ("op", "attrs", "want"),
    [
        ("HzCalibration", {"scales": [0.25]}, (0.25,)),
        ("HzCalibration", {"scales": [0.25], "qtype": "int16"}, (0.25, -32768, 32767)),
        ("HzCalibration", {"thresholds": [4.0], "qtype": "int8"}, (F32(4) / F32(127),)),
        ("HzCalibration", {"thresholds": [4.0], "qtype": "int16"}, (F32(4) / F32(32767), -32768, 32767)),
        ("HzCalibration", {"scales": [0.5, 0.25, 1.0], "axis": 1}, ([[0.5], [0.25], [1]],)),
        ("FakeQuantize", {"scale": 0.25, "quant_min": -127, "quant_max": 127}, (0.25, -127, 127)),
        ("FakeQuant", {"scale": 0.25, "bits": 4}, (0.25, -8, 7)),
        ("LSQ", {"scale": -0.25, "Qn": -8, "Qp": 7}, (0.25, -8, 7)),
    ],
)
def test_custom_nodes_are_the_formula(op, attrs, want):
    x = values(80, 3, 4)
    np.testing.assert_array_equal(simulate(custom(op, **attrs), {"x": x})["y"], expected(x, *want))


def test_a_scale_may_be_an_input():
    x = values(80, 3, 4)
    made = custom("SymmetricFakeQuant", "custom", np.reshape([0.5, 0.25, 1], (1, 3, 1)), bits=8)
    want = expected(x, np.reshape([0.5, 0.25, 1], (3, 1)))
    np.testing.assert_array_equal(simulate(made, {"x": x})["y"], want)


def test_float32_calibration_leaves_the_tensor_alone():
    x = values(80, 3, 4)
    np.testing.assert_array_equal(simulate(custom("HzCalibration", qtype="float32"), {"x": x})["y"], x)


def test_quantize_and_dequantize_are_its_halves():
    nodes = [
        node("HzQuantize", "x", "q", "q", "horizon", scales=[0.25], qtype="int16"),
        node("HzDequantize", "q", "y", "d", "horizon", scales=[0.25]),
    ]
    made = model(nodes, {"x": (80, 3, 4)}, ["y"], domains=DOMAIN)
    x = values(80, 3, 4)
    np.testing.assert_array_equal(simulate(made, {"x": x})["y"], expected(x, 0.25, -32768, 32767))


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({}, "neither a scale nor a threshold"),
        ({"scales": [0.0]}, "scale 0 is not positive"),
        ({"scales": [float("nan")]}, "scale nan is not finite"),
        ({"scales": [0.5, 0.5], "axis": 1}, "2 channel parameters for 3 channels"),
        ({"scales": [0.5, 0.5, 0.5], "axis": 7}, "axis 7 is out of range"),
        ({"scales": [0.5], "qtype": "int4"}, "qtype 'int4' is not supported"),
        ({"scales": [0.5], "bits": 32}, "32 bits are not supported"),
        ({"scales": [0.5], "quant_min": -8}, "only one of its bounds"),
        ({"scales": [0.5], "quant_min": 7, "quant_max": -8}, "does not fit"),
    ],
)
def test_what_is_wrong_is_refused_with_the_node(attrs, reason):
    with pytest.raises(InputError, match=f"'fq' \\(HzCalibration\\): .*{reason}"):
        imported(custom("HzCalibration", **attrs))


def test_a_zero_point_is_refused():
    with pytest.raises(InputError, match="not a constant zero"):
        imported(custom("FakeQuantize", scale=0.5, zero_point=3))


# ---------------------------------------------------------------- written out

ROUND_CLIP = [
    node("Div", "{x} {s}", "{x}d"),
    node("Round", "{x}d", "{x}r"),
    node("Clip", "{x}r low high", "{x}c"),
    node("Mul", "{x}c {s}", "{x}q"),
]
CLIP_ROUND = [
    node("Div", "{x} {s}", "{x}d"),
    node("Clip", "{x}d low high", "{x}c"),
    node("Round", "{x}c", "{x}r"),
    node("Mul", "{x}r {s}", "{x}q"),
]
MIN_MAX = [
    node("Div", "{x} {s}", "{x}d"),
    node("Round", "{x}d", "{x}r"),
    node("Max", "low {x}r", "{x}a"),
    node("Min", "{x}a high", "{x}c"),
    node("Mul", "{s} {x}c", "{x}q"),
]
FLOOR_HALF = [
    node("Div", "{x} {s}", "{x}d"),
    node("Add", "half {x}d", "{x}h"),
    node("Floor", "{x}h", "{x}r"),
    node("Clip", "{x}r low high", "{x}c"),
    node("Mul", "{x}c {s}", "{x}q"),
]
CASTS = [
    node("Div", "{x} {s}", "{x}d"),
    node("Round", "{x}d", "{x}r"),
    node("Clip", "{x}r low high", "{x}c"),
    node("Cast", "{x}c", "{x}i", to=TensorProto.INT8),
    node("Cast", "{x}i", "{x}f", to=TensorProto.FLOAT),
    node("Mul", "{x}f {s}", "{x}q"),
]
RECIPROCAL = [
    node("Reciprocal", "{s}", "{x}i"),
    node("Mul", "{x} {x}i", "{x}d"),
    node("Round", "{x}d", "{x}r"),
    node("Clip", "{x}r low high", "{x}c"),
    node("Mul", "{x}c {s}", "{x}q"),
]
LEARNED = [node("Abs", "{s}", "{x}s"), *[node("Div", "{x} {x}s", "{x}d")], *ROUND_CLIP[1:3],
           node("Mul", "{x}c {x}s", "{x}q")]  # fmt: skip
SPELLINGS = {
    "round, clip": ROUND_CLIP,
    "clip, round": CLIP_ROUND,
    "min and max": MIN_MAX,
    "floor of x plus a half": FLOOR_HALF,
    "through int8": CASTS,
    "by the reciprocal": RECIPROCAL,
    "a learned scale, made positive": LEARNED,
}


def chain(spelling: str, x: str, s: str) -> list[Any]:
    """The nodes of a spelling for tensor `x` and scale `s`; the result is called `{x}q`."""
    made = []
    for pattern in SPELLINGS[spelling]:
        names = [" ".join(part).format(x=x, s=s) for part in (pattern.input, pattern.output)]
        copy = node(pattern.op_type, *names)
        copy.attribute.extend(pattern.attribute)
        made.append(copy)
    return made


def network(spelling: str, bits: int = 8) -> Any:
    """Fake quantization, a convolution with fake-quantized weights per channel, ReLU, the same again.

    Scales are powers of two and biases multiples of their product, so that float32 sums are exact.
    """
    rng = np.random.default_rng(5)
    sign = -1 if "learned" in spelling else 1
    nodes = [
        *chain(spelling, "x", "sx"),
        *chain(spelling, "w", "sw"),
        node("Conv", "xq wq b", "c", "conv1", pads=[1, 1, 1, 1]),
        node("Relu", "c", "a", "relu1"),
        *chain(spelling, "a", "sa"),
        *chain(spelling, "v", "sv"),
        node("Conv", "aq vq", "y", "conv2"),
    ]
    constants = {
        "low": f32(-(2 ** (bits - 1))), "high": f32(2 ** (bits - 1) - 1), "half": f32(0.5),
        "sx": F32([sign * 2.0 ** (3 - bits)]), "sa": f32(sign * 2.0 ** (4 - bits)),
        "sw": sign * F32(rng.choice([2.0**-5, 2.0**-6, 2.0**-7], (8, 1, 1, 1))),
        "sv": sign * F32(rng.choice([2.0**-5, 2.0**-6], (4, 1, 1, 1))),
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(F32), "v": rng.normal(0, 0.3, (4, 8, 1, 1)).astype(F32),
        "b": (rng.integers(-300, 300, 8) / 1024).astype(F32),
    }  # fmt: skip
    return model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants, opset=13)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_written_out_networks_run_on_integers(spelling):
    made = network(spelling)
    package = compile_model(made, target="llvm")
    assert package.totals["int8_mac_share"] == 1
    assert package.totals["float_operators"] == 0
    rng, source = np.random.default_rng(6), imported(made)
    for _ in range(10):
        x = {"x": rng.normal(0, 1, (1, 3, 6, 6)).astype(F32)}
        found = package.run(x)["y"]
        np.testing.assert_array_equal(found, onnxruntime_outputs(made, x)["y"])
        np.testing.assert_array_equal(found, *evaluate_module(source, x))


def test_twelve_bit_networks_stay_on_integers():
    made = network("round, clip", 12)
    x = {"x": np.random.default_rng(6).normal(0, 1, (1, 3, 6, 6)).astype(F32)}
    found = compile_model(made, target="llvm")
    np.testing.assert_array_equal(found.run(x)["y"], onnxruntime_outputs(made, x)["y"])
    assert found.totals["int8_mac_share"] == 1


def test_weights_keep_what_training_said():
    """Arithmetic of constants is not folded where it is fake quantization."""
    names = [op_name(b.value) for b in bindings_of(imported(network("clip, round"))["main"])]
    assert names.count("relax.round") == 4 and names.count("relax.divide") == 4
