"""QuantizeLinear and DequantizeLinear in all their spellings, against onnxruntime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, narrow, node
from tests.support.run import check_against_onnxruntime, imported, simulate
from tvm_qat.ir import bindings_of, op_name
from tvm_qat.qnn.params import params_of

RNG = np.random.default_rng(7)


def qdq(opset, scale, zero_point, shape=(2, 3, 4), **attrs):
    """x -> Q -> DQ, with both results as outputs."""
    constants = {"s": scale} | ({} if zero_point is None else {"z": zero_point})
    operands = "s z" if zero_point is not None else "s"
    nodes = [
        node("QuantizeLinear", f"x {operands}", "q", **attrs),
        node("DequantizeLinear", f"q {operands}", "y", **attrs),
    ]
    return model(nodes, {"x": shape}, ["q", "y"], constants, opset=opset)


@pytest.mark.parametrize("opset", [10, 11, 12, 13, 15, 19, 21, 23])
def test_per_tensor_in_every_opset(opset):
    check_against_onnxruntime(qdq(opset, f32(0.05), np.uint8(100)))


@pytest.mark.parametrize("scale", [f32(0.1), np.array([0.1], np.float32)])
def test_scale_of_shape_one_is_per_tensor(scale):
    zero_point = np.full(scale.shape, 3, np.int8)
    mod = imported(qdq(13, scale, zero_point))
    params = params_of(next(bindings_of(mod["main"])).value, "output")
    assert params is not None and not params.per_channel
    check_against_onnxruntime(qdq(13, scale, zero_point))


def test_missing_zero_point_means_uint8():
    check_against_onnxruntime(qdq(13, f32(0.02), None))


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16])
def test_output_dtype_without_zero_point(kind):
    nodes = [node("QuantizeLinear", "x s", "y", output_dtype=kind)]
    check_against_onnxruntime(model(nodes, {"x": (3, 4)}, ["y"], {"s": f32(0.01)}, opset=21))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_storage_types(dtype):
    check_against_onnxruntime(qdq(21, f32(0.003), np.array(5, dtype)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_per_channel_on_any_axis(axis):
    size = (2, 3, 4)[axis]
    scale = (0.01 + RNG.random(size) / 20).astype(np.float32)
    check_against_onnxruntime(qdq(13, scale, RNG.integers(-9, 9, size).astype(np.int8), axis=axis))


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
def test_four_bits_are_stored_in_eight_with_their_own_range(kind):
    zero_point = narrow(1, kind)
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    made = model(nodes, {"x": (4, 5)}, ["y"], {"s": f32(0.3), "z": zero_point}, opset=21)
    params = params_of(next(bindings_of(imported(made)["main"])).value, "output")
    assert params is not None
    assert params.dtype == ("int8" if kind == "INT4" else "uint8")
    assert params.range == ((-8, 7) if kind == "INT4" else (0, 15))
    check_against_onnxruntime(made)


@pytest.mark.parametrize(
    ("kind", "values"), [("INT2", [-2, -1, 0, 1]), ("UINT2", [0, 1, 2, 3]), ("INT4", [-8, -1, 0, 7])]
)
def test_narrow_weights_are_widened(kind, values):
    nodes = [node("DequantizeLinear", "w s", "y"), node("Add", "x y", "z")]
    made = model(nodes, {"x": (4,)}, ["z"], {"w": narrow(values, kind), "s": f32(0.5)}, opset=25)
    found = simulate(made, {"x": np.zeros(4, np.float32)})["z"]
    np.testing.assert_array_equal(found, np.array(values, np.float32) / 2)


def test_float16_scale_and_data():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    constants = {"s": np.float16(0.03), "z": np.int8(4)}
    made = model(nodes, {"x": ((2, 9), TensorProto.FLOAT16)}, ["q", "y"], constants, opset=19)
    check_against_onnxruntime(made)


def test_bfloat16_scale_gives_bfloat16_data():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    constants = {"s": np.array(0.25, ml_dtypes.bfloat16), "z": np.int8(4)}
    made = model(nodes, {"x": ((2, 3), TensorProto.BFLOAT16)}, ["q", "y"], constants, opset=19)
    data = np.array([[0, 1, -1], [2.25, 100, -100]], ml_dtypes.bfloat16)
    found = simulate(made, {"x": data})
    np.testing.assert_array_equal(found["q"], [[4, 8, 0], [13, 127, -128]])
    assert found["y"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found["y"].astype(np.float32), [[0, 1, -1], [2.25, 30.75, -33]])


def test_parameters_computed_at_run_time():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    inputs = {"x": (2, 3), "s": (1,), "z": ((1,), TensorProto.INT8)}
    made = model(nodes, inputs, ["q", "y"], opset=13)
    data = {"x": f32(*range(6)).reshape(2, 3), "s": np.array([0.5], np.float32), "z": np.array([-3], np.int8)}
    np.testing.assert_array_equal(simulate(made, data)["q"], [[-3, -1, 1], [3, 5, 7]])
    np.testing.assert_array_equal(simulate(made, data)["y"], data["x"])


def test_int32_bias_keeps_its_product_scale():
    weight = RNG.integers(-127, 127, (4, 3, 1, 1)).astype(np.int8)
    scales = (0.01 + RNG.random(4) / 50).astype(np.float32)
    constants = {
        "sx": f32(0.02), "zx": np.uint8(120), "w": weight, "sw": scales, "zw": np.zeros(4, np.int8),
        "b": RNG.integers(-999, 999, 4).astype(np.int32), "sb": scales * np.float32(0.02),
        "sy": f32(0.1), "zy": np.uint8(128),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "xq"),
        node("DequantizeLinear", "xq sx zx", "xd"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb", "bd", axis=0),
        node("Conv", "xd wd bd", "c", "conv"),
        node("QuantizeLinear", "c sy zy", "y"),
    ]
    made = model(nodes, {"x": ("batch", 3, 4, 4)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made, steps=1)
    names = [op_name(binding.value) for binding in bindings_of(imported(made)["main"])]
    assert names.count("qnn.dequantize") == 3 and "relax.nn.conv2d" in names


def test_quantized_weight_inside_the_graph():
    nodes = [
        node("QuantizeLinear", "w s z", "wq"),
        node("DequantizeLinear", "wq s z", "wd"),
        node("MatMul", "x wd", "y"),
    ]
    constants = {"w": RNG.standard_normal((4, 5)).astype(np.float32), "s": f32(0.01), "z": np.int8(0)}
    check_against_onnxruntime(model(nodes, {"x": (2, 4)}, ["y"], constants, opset=13))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_blocked_parameters(axis):
    shape = (4, 6, 8)
    blocks = tuple(size // 2 if i == axis % 3 else size for i, size in enumerate(shape))
    constants = {
        "s": (0.01 + RNG.random(blocks) / 9).astype(np.float32),
        "z": RNG.integers(-9, 9, blocks).astype(np.int8),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q", axis=axis, block_size=2),
        node("DequantizeLinear", "q s z", "y", axis=axis, block_size=2),
    ]
    check_against_onnxruntime(model(nodes, {"x": shape}, ["q", "y"], constants, opset=21))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int8", "uint8"])
def test_microsoft_domain_has_the_same_two_operators(dtype):
    nodes = [
        node("QuantizeLinear", "x s z", "q", domain="com.microsoft"),
        node("DequantizeLinear", "q s z", "y", domain="com.microsoft"),
    ]
    check_against_onnxruntime(
        model(nodes, {"x": (3, 4)}, ["y"], {"s": f32(0.01), "z": np.array(9, dtype)}, opset=17)
    )


def test_ties_round_to_even_and_ends_saturate():
    data = f32(0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9).reshape(1, 7)
    found = simulate(qdq(13, f32(1.0), np.int8(0), (1, 7)), {"x": data})["q"]
    np.testing.assert_array_equal(found, [[0, 2, 2, 0, -2, 127, -128]])
