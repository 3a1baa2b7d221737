"""QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, node
from tests.support.run import check_against_onnxruntime, imported
from tvm_qat.ir import bindings_of, op_name

RNG = np.random.default_rng(3)
U8, I8 = TensorProto.UINT8, TensorProto.INT8


def integers(dtype, *shape):
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def operators(made):
    return [op_name(binding.value) for binding in bindings_of(imported(made)["main"])]


def qlinear_conv(x_kind, weight, w_scale, w_zero, shape=(2, 4, 7, 6), bias=None, **attrs):
    unsigned = x_kind == U8
    constants = {
        "sx": f32(0.03), "zx": np.uint8(7) if unsigned else np.int8(-7), "w": weight, "sw": w_scale,
        "zw": w_zero, "sy": f32(1.7), "zy": np.uint8(128) if unsigned else np.int8(3),
    }  # fmt: skip
    constants |= {} if bias is None else {"b": bias}
    operands = "x sx zx w sw zw sy zy" + ("" if bias is None else " b")
    nodes = [node("QLinearConv", operands, "y", "conv", **attrs)]
    return model(nodes, {"x": (shape, x_kind)}, ["y"], constants, opset=13)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 1], "strides": [2, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
    ],
)
@pytest.mark.parametrize("x_kind", [U8, I8])
def test_qlinear_conv_windows(x_kind, attrs):
    weight = integers(np.int8, 5, 4, 3, 3)
    check_against_onnxruntime(qlinear_conv(x_kind, weight, f32(0.02), np.int8(0), **attrs), steps=1)


def test_qlinear_conv_per_channel_with_bias():
    weight = integers(np.int8, 6, 4, 3, 3)
    scales = (0.005 + RNG.random(6) / 100).astype(np.float32)
    bias = RNG.integers(-2000, 2000, 6).astype(np.int32)
    made = qlinear_conv(U8, weight, scales, np.zeros(6, np.int8), bias=bias)
    check_against_onnxruntime(made, steps=1)
    assert operators(made).count("qnn.dequantize") == 3
    assert operators(made)[-3:-1] == ["relax.add", "qnn.quantize"]


def test_qlinear_conv_grouped_and_depthwise():
    for groups, channels in ((2, 6), (4, 4)):
        weight = integers(np.uint8, channels, 4 // groups, 3, 3)
        made = qlinear_conv(U8, weight, f32(0.02), np.uint8(100), group=groups)
        check_against_onnxruntime(made, steps=1)


def test_qlinear_conv_in_one_and_three_dimensions():
    for shape, kernel in (((1, 3, 9), (3,)), ((1, 3, 4, 5, 6), (2, 3, 2))):
        weight = integers(np.int8, 4, 3, *kernel)
        check_against_onnxruntime(qlinear_conv(U8, weight, f32(0.02), np.int8(0), shape), steps=1)


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv_with_parameters_computed_at_run_time_stays_integer(per_channel):
    constants = {
        "w": integers(np.int8, 5, 3, 3, 3), "zw": np.zeros(5 if per_channel else (), np.int8),
        "b": RNG.integers(-99, 99, 5).astype(np.int32), "zx": np.uint8(9), "zy": np.uint8(128),
    }  # fmt: skip
    nodes = [
        node("Abs", "a", "sx"),
        node("Abs", "c", "sw"),
        node("QLinearConv", "x sx zx w sw zw d zy b", "y"),
    ]
    constants["d"] = f32(300.0)
    inputs = {"x": ((1, 3, 5, 5), U8), "a": (), "c": (5,) if per_channel else ()}
    made = model(nodes, inputs, ["y"], constants, opset=13)
    assert "qnn.conv2d" in operators(made)
    check_against_onnxruntime(made, steps=1)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"), [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))]
)
@pytest.mark.parametrize("kind", [U8, I8])
def test_qlinear_matmul(kind, a_shape, b_shape):
    dtype = np.uint8 if kind == U8 else np.int8
    constants = {
        "sa": f32(0.02), "za": dtype(5), "sb": f32(0.03), "zb": dtype(6), "sy": f32(0.5), "zy": dtype(99),
    }  # fmt: skip
    nodes = [node("QLinearMatMul", "a sa za b sb zb sy zy", "y")]
    made = model(nodes, {"a": (a_shape, kind), "b": (b_shape, kind)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made, steps=1)


def test_qlinear_matmul_with_a_scale_per_column():
    constants = {
        "sa": f32(0.02), "za": np.uint8(5), "b": integers(np.int8, 4, 5), "sy": f32(0.5), "zy": np.uint8(99),
        "sb": (0.01 + RNG.random(5) / 20).astype(np.float32), "zb": np.zeros(5, np.int8),
    }  # fmt: skip
    nodes = [node("QLinearMatMul", "a sa za b sb zb sy zy", "y")]
    check_against_onnxruntime(model(nodes, {"a": ((3, 4), U8)}, ["y"], constants, opset=13), steps=1)


@pytest.mark.parametrize("attrs", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}])
def test_conv_integer_is_exact(attrs):
    constants = {"w": integers(np.uint8, 4, 3, 3, 3), "zx": np.uint8(11), "zw": np.uint8(77)}
    made = model(
        [node("ConvInteger", "x w zx zw", "y", **attrs)], {"x": ((1, 3, 5, 5), U8)}, ["y"], constants
    )
    check_against_onnxruntime(made)
    assert operators(made)[0] == "qnn.conv2d"


def test_conv_integer_without_zero_points():
    made = model([node("ConvInteger", "x w", "y")], {"x": ((1, 2, 4, 4), U8), "w": ((3, 2, 2, 2), U8)}, ["y"])
    check_against_onnxruntime(made)


@pytest.mark.parametrize("b_dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("per_column", [False, True])
def test_matmul_integer_with_a_constant_is_a_dense_layer(b_dtype, per_column):
    constants = {
        "b": integers(b_dtype, 4, 5), "za": np.uint8(9),
        "zb": integers(b_dtype, 5) if per_column else b_dtype(3),
    }  # fmt: skip
    made = model([node("MatMulInteger", "a b za zb", "y")], {"a": ((2, 3, 4), U8)}, ["y"], constants)
    check_against_onnxruntime(made)
    assert operators(made)[0] == "qnn.dense"


def test_matmul_integer_of_two_activations():
    constants = {"za": np.int8(9), "zb": np.int8(-3)}
    inputs = {"a": ((2, 3, 4), I8), "b": ((2, 4, 5), I8)}
    made = model([node("MatMulInteger", "a b za zb", "y")], inputs, ["y"], constants)
    check_against_onnxruntime(made)
    assert operators(made)[0] == "qnn.batch_matmul"


def test_matmul_integer_without_zero_points_and_with_vectors():
    for a_shape, b_shape in (((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,))):
        made = model([node("MatMulInteger", "a b", "y")], {"a": (a_shape, U8), "b": (b_shape, U8)}, ["y"])
        check_against_onnxruntime(made)
