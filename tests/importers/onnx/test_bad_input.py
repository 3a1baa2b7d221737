"""Damaged and contradictory models: one line that names file or node and the reason, no traceback."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.support.onnx_models import f32, model, ms, narrow, node
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model


def q(scale=None, zero_point=None, shape=(2, 3), opset=13, **attrs):
    constants = {
        "s": f32(0.1) if scale is None else scale,
        "z": np.int8(0) if zero_point is None else zero_point,
    }
    return model(
        [node("QuantizeLinear", "x s z", "y", "quant", **attrs)], {"x": shape}, ["y"], constants, opset=opset
    )


def edited(made, change):
    change(made)
    return made


def chain(*nodes, inputs=None, outputs=("y",), constants=None, **options):
    return model(list(nodes), inputs or {"x": (2, 3)}, list(outputs), constants, **options)


def conv(weight_shape=(4, 3, 3, 3), x=(1, 3, 8, 8), **attrs):
    weight = np.zeros(weight_shape, np.float32)
    return model([node("Conv", "x w", "y", "conv1", **attrs)], {"x": x}, ["y"], {"w": weight}, opset=13)


def _two_initializers(made):
    made.graph.initializer.append(made.graph.initializer[0])


def _short_weight(made):
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-1]


def _negative_dimension(made):
    made.graph.initializer[0].dims[0] = -4


def _huge_weight(made):
    made.graph.initializer[0].dims[0] = 1 << 60


def _unknown_type(made):
    made.graph.initializer[0].data_type = 99


def _string_type(made):
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def _wrong_attribute(made):
    attribute = helper.make_attribute("strides", 1.5)
    made.graph.node[0].attribute.append(attribute)


def _same_attribute_twice(made):
    for _ in range(2):
        made.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 1]))


def _ir_version(version):
    def change(made):
        made.ir_version = version

    return change


def _unfinished_equation(made):
    made.graph.node[0].attribute[0].s = b"ab>"


def _opset(version):
    def change(made):
        made.opset_import[0].version = version

    return change


CASES = {
    "zero scale": (lambda: q(f32(0.0)), "'quant' (QuantizeLinear): scale 0 is not positive"),
    "negative scale": (lambda: q(f32(-0.5)), "'quant' (QuantizeLinear): scale -0.5 is not positive"),
    "NaN scale": (lambda: q(f32(float("nan"))), "'quant' (QuantizeLinear): scale nan is not finite"),
    "infinite scale": (lambda: q(f32(float("inf"))), "'quant' (QuantizeLinear): scale inf is not finite"),
    "one bad scale of many": (lambda: q(f32(0.1, 0.0, 0.2), np.zeros(3, np.int8)), "scale 0 is not positive"),
    "empty scale": (lambda: q(np.zeros(0, np.float32), np.zeros(0, np.int8)), "'quant'"),
    "axis out of range": (
        lambda: q(f32(1, 2, 3), np.zeros(3, np.int8), axis=2),
        "axis 2 is out of range for rank 2",
    ),
    "axis of other length": (
        lambda: q(f32(1, 2), np.zeros(2, np.int8), axis=1),
        "2 channel parameters for 3 channels",
    ),
    "lengths differ": (lambda: q(f32(1, 2, 3), np.zeros(2, np.int8)), "'quant' (QuantizeLinear)"),
    "zero point longer": (lambda: q(f32(1.0), np.zeros(3, np.int8)), "'quant' (QuantizeLinear)"),
    "scale of rank two": (
        lambda: q(np.ones((2, 3), np.float32), np.zeros((2, 3), np.int8)),
        "no block_size is given",
    ),
    "zero point of another type": (
        lambda: chain(
            node("DequantizeLinear", "x s z", "y", "dq"),
            inputs={"x": ((2,), TensorProto.UINT8)},
            constants={"s": f32(0.1), "z": np.int8(0)},
            opset=13,
        ),
        "'dq' (DequantizeLinear)",
    ),
    "output_dtype against zero point": (
        lambda: q(opset=21, output_dtype=TensorProto.UINT8),
        "'quant' (QuantizeLinear)",
    ),
    "per channel in opset 10": (
        lambda: q(f32(1, 2, 3), np.zeros(3, np.int8), opset=10),
        "per-channel parameters need opset 13",
    ),
    "blocks that do not fit": (
        lambda: q(np.ones((2, 2), np.float32), np.zeros((2, 2), np.int8), opset=21, axis=1, block_size=2),
        "are not whole blocks of 2",
    ),
    "float8": (
        lambda: chain(
            node("QuantizeLinear", "x s", "y", "q8", output_dtype=TensorProto.FLOAT8E4M3FN),
            constants={"s": f32(1.0)},
            opset=21,
        ),
        "'q8' (QuantizeLinear): quantized values of type FLOAT8E4M3FN are not supported",
    ),
    "arithmetic on float8": (
        lambda: chain(
            node("Cast", "x", "y", "c", to=TensorProto.FLOAT),
            inputs={"x": ((2,), TensorProto.FLOAT8E5M2)},
            opset=21,
        ),
        "'c' (Cast): Cast of FLOAT8E5M2 is not supported",
    ),
    "cast to int4": (
        lambda: chain(node("Cast", "x", "y", "c", to=TensorProto.INT4), opset=21),
        "'c' (Cast): a cast to INT4 is not supported",
    ),
    "cycle": (
        lambda: chain(node("Add", "x b", "a", "n1"), node("Neg", "a", "b", "n2"), node("Neg", "b", "y")),
        "'n1' (Add): the graph has a cycle",
    ),
    "node that reads itself": (
        lambda: chain(node("Add", "x y", "y", "self")),
        "'self' (Add): the graph has a cycle",
    ),
    "dangling input": (
        lambda: chain(node("Add", "x nowhere", "y", "n")),
        "'n' (Add): input 'nowhere' is produced by no",
    ),
    "dangling output": (
        lambda: chain(node("Neg", "x", "a"), outputs=["b"]),
        "output 'b' is produced by no node",
    ),
    "value defined twice": (
        lambda: chain(node("Neg", "x", "y", "n1"), node("Abs", "x", "y", "n2")),
        "'n2' (Abs): value 'y' is defined twice",
    ),
    "output listed twice": (
        lambda: chain(node("Neg", "x", "y"), outputs=["y", "y"]),
        "output 'y' is defined twice",
    ),
    "initializer defined twice": (
        lambda: edited(conv(), _two_initializers),
        "initializer 'w' is defined twice",
    ),
    "too few inputs": (lambda: chain(node("Add", "x", "y", "lonely")), "'lonely' (Add)"),
    "too many inputs": (lambda: chain(node("Relu", "x x", "y", "crowd")), "'crowd' (Relu)"),
    "wrong attribute type": (lambda: edited(conv(), _wrong_attribute), "'conv1' (Conv)"),
    "attribute given twice": (lambda: edited(conv(), _same_attribute_twice), "'conv1' (Conv)"),
    "required attribute missing": (lambda: chain(node("Concat", "x x", "y", "cat")), "'cat' (Concat)"),
    "channels do not fit": (lambda: conv((4, 2, 3, 3)), "'conv1' (Conv)"),
    "groups do not fit": (lambda: conv(group=2), "'conv1' (Conv)"),
    "group zero": (lambda: conv(group=0), "'conv1' (Conv)"),
    "kernel_shape against weight": (lambda: conv(kernel_shape=[5, 5]), "'conv1' (Conv)"),
    "stride zero": (lambda: conv(strides=[0, 0]), "'conv1' (Conv)"),
    "negative stride": (lambda: conv(strides=[-1, 1]), "'conv1' (Conv)"),
    "pads too short": (lambda: conv(pads=[1, 1]), "'conv1' (Conv)"),
    "pads without end": (lambda: conv(pads=[1 << 40] * 4), "'conv1' (Conv)"),
    "weight of another rank": (lambda: conv((4, 3, 3)), "'conv1' (Conv)"),
    "kernel larger than data": (lambda: conv(x=(1, 3, 2, 2)), "'conv1' (Conv)"),
    "matmul that does not fit": (
        lambda: chain(node("MatMul", "x w", "y", "mm"), constants={"w": np.zeros((5, 2), np.float32)}),
        "'mm' (MatMul)",
    ),
    "broadcast that does not fit": (
        lambda: chain(node("Add", "x w", "y", "add"), constants={"w": np.zeros((2, 4), np.float32)}),
        "'add' (Add)",
    ),
    "reshape that does not fit": (
        lambda: chain(node("Reshape", "x t", "y", "re"), constants={"t": np.array([4, 4])}),
        "'re' (Reshape)",
    ),
    "transpose that does not fit": (
        lambda: chain(node("Transpose", "x", "y", "tr", perm=[0, 0])),
        "'tr' (Transpose)",
    ),
    "gather out of range": (
        lambda: chain(
            node("Gather", "c i", "g", "ga"),
            node("Add", "x g", "y"),
            constants={"c": f32(1, 2, 3), "i": np.int64(9)},
        ),
        "'ga' (Gather)",
    ),
    "constant without end": (
        lambda: chain(node("ConstantOfShape", "n", "y", "big"), constants={"n": np.array([1 << 40])}),
        "'big' (ConstantOfShape): it makes a constant",
    ),
    "expansion without end": (
        lambda: chain(
            node("Expand", "c n", "y", "big"), constants={"c": f32(1.0), "n": np.array([1 << 30, 1 << 20])}
        ),
        "'big' (Expand): it makes a constant",
    ),
    "range without end": (
        lambda: chain(
            node("Range", "a b c", "y", "big"), constants={"a": f32(0.0), "b": f32(1e30), "c": f32(1.0)}
        ),
        "'big' (Range): it makes a constant",
    ),
    "tile without end": (
        lambda: chain(node("Tile", "x n", "y", "big"), constants={"n": np.array([1 << 40, 1 << 10])}),
        "'big' (Tile)",
    ),
    "input without end": (
        lambda: chain(node("Neg", "x", "y"), inputs={"x": (1 << 40, 1 << 40)}),
        "'x' (input): a shape of",
    ),
    "weight with a byte missing": (
        lambda: edited(conv(), _short_weight),
        "tensor 'w' (4x3x3x3) needs 432 bytes but has 431",
    ),
    "weight of negative size": (lambda: edited(conv(), _negative_dimension), "'w'"),
    "weight of huge size": (lambda: edited(conv(), _huge_weight), "'w'"),
    "weight of unknown type": (lambda: edited(conv(), _unknown_type), "99"),
    "text as input": (lambda: edited(conv(), _string_type), "'x' (input): data type STRING is not supported"),
    "opset of the future": (lambda: edited(conv(), _opset(999)), "opset 999 is outside"),
    "opset of the past": (lambda: edited(conv(), _opset(7)), "opset 7 is outside"),
    "types that do not fit": (
        lambda: chain(node("Add", "x i", "y", "add"), inputs={"x": (2,), "i": ((2,), TensorProto.INT64)}),
        "'add' (Add)",
    ),
    "int8 into Gemm": (
        lambda: chain(node("Gemm", "x w", "y", "gemm"), constants={"w": np.zeros((3, 2), np.int8)}),
        "'gemm' (Gemm)",
    ),
    "microsoft op without its inputs": (
        lambda: chain(ms("QLinearAdd", "x", "y", "qadd"), inputs={"x": ((2,), TensorProto.UINT8)}),
        "'qadd' (QLinearAdd): input 1 is missing",
    ),
    "concat with half a triple": (
        lambda: chain(
            ms("QLinearConcat", "s z x s", "y", "cat", axis=0),
            inputs={"x": ((2,), TensorProto.UINT8)},
            constants={"s": f32(1.0), "z": np.uint8(0)},
        ),
        "'cat' (QLinearConcat): 4 inputs are not",
    ),
    "microsoft op with a zero scale": (
        lambda: chain(
            ms("QLinearSigmoid", "x s z t z", "y", "sig"),
            inputs={"x": ((2,), TensorProto.UINT8)},
            constants={"s": f32(1.0), "t": f32(0.0), "z": np.uint8(0)},
        ),
        "'sig' (QLinearSigmoid): scale 0 is not positive",
    ),
    "indices of a pooling": (
        lambda: chain(
            node("MaxPool", "x", "y i", "pool", kernel_shape=[2, 2]),
            inputs={"x": (1, 1, 4, 4)},
            outputs=["y", "i"],
        ),
        "'pool' (MaxPool): the output Indices is not supported",
    ),
    "sequence as input": (
        lambda: edited(
            conv(), lambda made: made.graph.input[0].type.sequence_type.elem_type.tensor_type.Clear()
        ),
        "'x'",
    ),
    "a concatenation with a hole": (
        lambda: edited(
            chain(node("Concat", "x x", "y", "c", axis=0)), lambda m: m.graph.node[0].input.append("")
        ),
        "node 'c' (Concat): input 2 is missing",
    ),
    "an equation that is none": (
        lambda: edited(chain(node("Einsum", "x", "y", "e", equation="ab")), _unfinished_equation),
        "node 'e' (Einsum): equation b'ab>' is none",
    ),
    "version beyond 32 bits": (lambda: edited(conv(), _ir_version(1 << 40)), "is not an ONNX model"),
    "nothing but a header": (lambda: ModelProto(ir_version=8), "is not an ONNX model"),
    "sub-byte zero point out of its range": (
        lambda: chain(
            node("DequantizeLinear", "w s z", "d", "dq"),
            node("Add", "x d", "y"),
            opset=21,
            constants={"w": narrow([1, 2, 3], "INT4"), "s": f32(1.0), "z": np.int8(100)},
        ),
        "'dq' (DequantizeLinear)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_with_place_and_reason(name, tmp_path, capfd):
    build, fragment = CASES[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(build().SerializeToString())
    with pytest.raises(InputError) as error:
        import_model(path)
    message = str(error.value)
    assert capfd.readouterr() == ("", "")
    assert message.startswith("bad.onnx: ")
    assert fragment in message
    assert "\n" not in message and len(message) < 500 and "Traceback" not in message
