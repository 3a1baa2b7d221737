"""The quantized operators of com.microsoft against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, ms
from tests.support.run import check_against_onnxruntime, imported
from tvm_qat.ir import bindings_of, op_name, source_of

RNG = np.random.default_rng(5)
KINDS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def unary(op, shape, dtype, out_scale=0.02, **attrs):
    constants = {"sx": f32(0.05), "zx": np.array(20, dtype), "sy": f32(out_scale), "zy": np.array(4, dtype)}
    made = model(
        [ms(op, "x sx zx sy zy", "y", "n", **attrs)], {"x": (shape, KINDS[dtype])}, ["y"], constants, opset=13
    )
    made.graph.output[0].type.tensor_type.elem_type = KINDS[dtype]
    return made


def binary(op, dtype, a=(2, 3, 4), b=(2, 3, 4)):
    constants = {
        "sa": f32(0.05), "za": np.array(20, dtype), "sb": f32(0.07), "zb": np.array(1, dtype),
        "sy": f32(0.11), "zy": np.array(60, dtype),
    }  # fmt: skip
    inputs = {"a": (a, KINDS[dtype]), "b": (b, KINDS[dtype])}
    made = model([ms(op, "a sa za b sb zb sy zy", "y")], inputs, ["y"], constants, opset=13)
    made.graph.output[0].type.tensor_type.elem_type = KINDS[dtype]
    return made


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op, dtype):
    check_against_onnxruntime(binary(op, dtype), steps=1)
    check_against_onnxruntime(binary(op, dtype, b=(3, 1)), steps=1)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("op", "attrs"),
    [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.2}), ("QLinearLeakyRelu", {})],
)
def test_unary(op, attrs, dtype):
    check_against_onnxruntime(unary(op, (3, 50), dtype, **attrs), steps=1)


@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 13), (1, 12), (2, 12)])
def test_softmax_in_both_meanings(axis, opset):
    made = unary("QLinearSoftmax", (2, 3, 4), "uint8", 1 / 256, axis=axis, opset=opset)
    check_against_onnxruntime(made, steps=1)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ],
)
def test_average_pool(attrs, last):
    shape = (1, 6, 5, 3) if last else (1, 3, 6, 5)
    check_against_onnxruntime(
        unary("QLinearAveragePool", shape, "uint8", channels_last=last, **attrs), steps=1
    )


@pytest.mark.parametrize("last", [0, 1])
def test_global_average_pool(last):
    made = unary("QLinearGlobalAveragePool", (2, 4, 5, 3), "uint8", channels_last=last)
    check_against_onnxruntime(made, steps=1)


@pytest.mark.parametrize("axis", [1, -1])
def test_concat_of_parts_on_different_grids(axis):
    constants = {
        "sy": f32(0.1), "zy": np.uint8(30), "sa": f32(0.05), "za": np.uint8(20), "sb": f32(0.1),
        "zb": np.uint8(30),
    }  # fmt: skip
    inputs = {"a": ((2, 3, 4), TensorProto.UINT8), "b": ((2, 3, 4), TensorProto.UINT8)}
    made = model(
        [ms("QLinearConcat", "sy zy a sa za b sb zb", "y", axis=axis)], inputs, ["y"], constants, opset=13
    )
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    check_against_onnxruntime(made, steps=1)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("quantized", [True, False])
def test_gemm(trans_b, alpha, quantized):
    shape = (5, 4) if trans_b else (4, 5)
    constants = {
        "sa": f32(0.02), "za": np.uint8(9), "b": RNG.integers(-128, 127, shape).astype(np.int8),
        "sb": (0.01 + RNG.random(5) / 50).astype(np.float32), "zb": np.zeros(5, np.int8),
        "c": RNG.integers(-500, 500, 5).astype(np.int32),
    }  # fmt: skip
    operands = "a sa za b sb zb c"
    if quantized:
        constants |= {"sy": f32(0.1), "zy": np.uint8(128)}
        operands += " sy zy"
    made = model(
        [ms("QGemm", operands, "y", transB=trans_b, alpha=alpha)],
        {"a": ((3, 4), TensorProto.UINT8)}, ["y"], constants, opset=13,
    )  # fmt: skip
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    check_against_onnxruntime(made, steps=1)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_matmul_integer_to_float(per_column, bias):
    constants = {
        "b": RNG.integers(-128, 127, (4, 5)).astype(np.int8), "sa": f32(0.02), "za": np.uint8(9),
        "sb": (0.01 + RNG.random(5 if per_column else 1) / 50).astype(np.float32),
        "zb": np.zeros(5 if per_column else 1, np.int8), "c": RNG.standard_normal(5).astype(np.float32),
    }  # fmt: skip
    nodes = [ms("MatMulIntegerToFloat", "a b sa sb za zb" + (" c" if bias else ""), "y")]
    made = model(nodes, {"a": ((2, 3, 4), TensorProto.UINT8)}, ["y"], constants, opset=13)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check_against_onnxruntime(made)


@pytest.mark.parametrize("per_column", [False, True])
def test_dynamic_quantize_matmul(per_column):
    constants = {
        "b": RNG.integers(0, 255, (4, 5)).astype(np.uint8),
        "sb": (0.01 + RNG.random(5 if per_column else 1) / 50).astype(np.float32),
        "zb": np.full(5 if per_column else 1, 128, np.uint8), "c": RNG.standard_normal(5).astype(np.float32),
    }  # fmt: skip
    made = model([ms("DynamicQuantizeMatMul", "a b sb zb c", "y")], {"a": (3, 4)}, ["y"], constants, opset=13)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check_against_onnxruntime(made)
    assert "qnn.dense" in [op_name(binding.value) for binding in bindings_of(imported(made)["main"])]


def test_where_and_reduce_mean():
    constants = {
        "sx": f32(0.05), "zx": np.uint8(20), "sy": f32(0.1), "zy": np.uint8(3), "sz": f32(0.1),
        "zz": np.uint8(9),
    }  # fmt: skip
    inputs = {
        "c": ((2, 3), TensorProto.BOOL),
        "x": ((2, 3), TensorProto.UINT8),
        "y": ((2, 3), TensorProto.UINT8),
    }
    made = model([ms("QLinearWhere", "c x sx zx y sy zy sz zz", "z")], inputs, ["z"], constants, opset=13)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    check_against_onnxruntime(made, steps=1)


def test_everything_a_node_became_carries_its_name():
    made = unary("QLinearSigmoid", (1, 4), "uint8")
    func = imported(made)["main"]
    assert {source_of(b.value) for b in bindings_of(func) if op_name(b.value)} == {"n"}
