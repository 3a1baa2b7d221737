"""A wrong call is refused when it is built, by one line that names operator and source node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.qnn_examples import CHANNELS, SUMS, A, B, Example, weight
from tvm_qat.errors import InputError
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

CONV = {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
POOL = {"pool_size": [2, 2], **CONV}
U8, S8, F32 = "uint8", "int8", "float32"
IMAGE = ((2, 3, 5, 6), U8)


def add(x: QParams = A, y: QParams = A, output: QParams = A) -> Callable[..., Any]:
    return lambda lhs, rhs: qnn.elementwise("add", lhs, rhs, x, y, output)


def conv(*shape: int, **attrs: Any) -> Callable[..., Any]:
    return lambda x: qnn.conv(x, weight(*shape), **{**CONV, **attrs})


def transposed(*shape: int, zero_points: Any = 0, **attrs: Any) -> Callable[..., Any]:
    attrs = {**CONV, "output_padding": [0, 0], **attrs}
    return lambda x: qnn.conv2d_transpose(x, weight(*shape), 0, zero_points, **attrs)


WRONG = [
    ("quantize", [((2, 3), S8)], lambda x: qnn.quantize(x, A), "data is not float"),
    ("dequantize", [((2, 3), F32)], lambda x: qnn.dequantize(x, A), "operand 0 is float32, not quantized"),
    ("requantize", [((2, 3), "int64")], lambda x: qnn.requantize(x, SUMS, A), "operand 0 is int64"),
    ("fake_quantize", [((2, 3), U8)], lambda x: qnn.fake_quantize(x, A), "data is not float"),
    ("quantize", [((2, 4), F32)], lambda x: qnn.quantize(x, CHANNELS), "for 4 channels on axis 1"),
    ("quantize", [((3,), F32)], lambda x: qnn.quantize(x, CHANNELS), "along axis 1 of 1"),
    ("fake_quantize_range", [((2, 4), F32)],
     lambda x: qnn.fake_quantize_range(x, [-1, -1, -1], [1, 1, 1], axis=1), "for 4 channels on axis 1"),
    ("requantize", [((3, 3), "int32")],
     lambda x: qnn.requantize(x, SUMS, CHANNELS.with_(axis=0)), "channels on different axes"),
    ("conv2d", [IMAGE], conv(4, 5, 3, 3), "channel size"),
    ("conv2d", [IMAGE], conv(4, 1, 3, 3, groups=2), "channel size"),
    ("conv2d", [IMAGE], conv(4, 3, 7, 3), "the window does not fit into its padded input"),
    ("conv2d", [IMAGE], conv(4, 3, 3), "rank 3 does not fit layout OIHW"),
    ("conv2d", [((2, 3, 5), U8)], conv(4, 3, 3, 3), "rank 3 does not fit layout NCHW"),
    ("conv2d", [IMAGE], conv(4, 3, 3, 3, padding=[1, 1]), "padding needs 4 numbers, not 2"),
    ("conv2d", [IMAGE], conv(4, 3, 3, 3, strides=[1]), "strides needs 2 numbers"),
    ("conv2d", [((2, 3, 5, 6), F32)], conv(4, 3, 3, 3), "operand 0 is float32"),
    ("conv2d", [IMAGE], lambda x: qnn.conv(x, weight(4, 3, 3, 3), 0, [1, 2, 3], **CONV), "channels: 4"),
    ("conv2d", [IMAGE], lambda x: qnn.conv(x, weight(4, 3, 3, 3), [1, 2, 3], **CONV), "must be a scalar"),
    ("conv2d_transpose", [IMAGE], transposed(4, 2, 3, 3), "3 channels, but a weight for 4"),
    ("conv2d_transpose", [IMAGE], transposed(3, 2, 3, 3, groups=2), "3 channels in 2 groups"),
    ("conv2d_transpose", [IMAGE], transposed(3, 2, 1, 1, padding=[3, 0, 2, 0]), "does not fit"),
    ("conv2d_transpose", [IMAGE], transposed(3, 2, 1, 1, zero_points=[1, 2, 3]), "channels: 2"),
    ("dense", [((2, 7), U8)], lambda x: qnn.dense(x, weight(4, 6)), "reduction"),
    ("dense", [((2, 7), U8)], lambda x: qnn.dense(x, weight(4, 6, 7)), r"the weight must be \[N, K\]"),
    ("dense", [((2, 7), U8)], lambda x: qnn.dense(x, weight(4, 7), 0, [1, 2]), "channels: 4"),
    ("batch_matmul", [((2, 3, 4), U8), ((2, 5, 4), S8)], qnn.batch_matmul, "reduction"),
    ("batch_matmul", [((2, 3, 4), U8), ((2, 4, 4), S8)],
     lambda x, y: qnn.batch_matmul(x, y, 0, [1, 2]), "must be a scalar"),
    ("add", [((2, 3), U8), ((2, 4), U8)], add(), "broadcast"),
    ("add", [((2, 3), U8), ((2, 3), F32)], add(), "operand 1 is float32"),
    ("add", [((2, 3), S8), ((2, 3), S8)], add(output=CHANNELS), "operand 6 must be a scalar"),
    ("add", [((2, 4), S8), ((2, 4), S8)], add(CHANNELS, B), "lhs parameters of shape"),
    ("add", [((4, 2, 3), S8), ((2, 3), S8)], add(B, CHANNELS), "needs the rank of the result"),
    ("concatenate", [((2, 3), U8), ((2, 3), U8)],
     lambda x, y: qnn.concatenate([x, y], [A, A], A, 2), "axis 2 is out of range"),
    ("concatenate", [((2, 3), S8), ((2, 3), S8)],
     lambda x, y: qnn.concatenate([x, y], [B, CHANNELS], B, 0), "quantized per tensor"),
    ("concatenate", [((2, 3), U8), ((3, 4), U8)],
     lambda x, y: qnn.concatenate([x, y], [A, A], A, 0), "shape"),
    ("avg_pool", [((2, 3, 5), U8)], lambda x: qnn.avg_pool(x, A, A, **POOL), "rank 3 does not fit NCHW"),
    ("avg_pool", [((2, 3, 1, 6), U8)], lambda x: qnn.avg_pool(x, A, A, **POOL), "does not fit"),
    ("avg_pool", [IMAGE], lambda x: qnn.avg_pool(x, A, A, **{**POOL, "padding": [0, 0]}), "padding needs 4"),
    ("avg_pool", [((2, 3, 5, 6), S8)], lambda x: qnn.avg_pool(x, CHANNELS, A, **POOL), "must be a scalar"),
    ("mean", [((2, 3), U8)], lambda x: qnn.mean(x, A, A, [2], True), "axis 2 is out of range"),
    ("mean", [((2, 3), F32)], lambda x: qnn.mean(x, A, A, [1], True), "operand 0 is float32"),
    ("softmax", [((2, 3), "int16")], lambda x: qnn.softmax(x, A, A, 1), "softmax needs 8-bit data"),
    ("softmax", [((2, 3), U8)], lambda x: qnn.softmax(x, A, A, 2), "axis 2 is out of range for rank 2"),
    ("softmax", [((2, 3), S8)], lambda x: qnn.softmax(x, CHANNELS, A, 1), "must be a scalar"),
    ("lut", [((2, 3), "int16")], lambda x: qnn.lut(x, np.zeros(256, np.int8)), "a table needs 8-bit data"),
    ("lut", [((2, 3), U8)], lambda x: qnn.lut(x, np.zeros(255, np.int8)), "256 entries"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "types", "call", "reason"), WRONG, ids=[f"{w[0]}: {w[3]}" for w in WRONG])
def test_a_wrong_call_names_operator_node_and_reason(name, types, call, reason):
    example = Example(f"qnn.{name}", "wrong", tuple(types), call)
    with pytest.raises(InputError, match=reason) as caught:
        example.module()
    message = str(caught.value)
    assert message.startswith(f"qnn.{name} at example: ")
    assert "\n" not in message and "ir.Op(" not in message


@pytest.mark.parametrize("parameter", [(), (1,)])
def test_parameters_of_one_element_are_scalars(parameter: tuple[int, ...]):
    zero = np.zeros(parameter, np.int32)
    Example(
        "qnn.conv2d", "", (IMAGE,), lambda x: qnn.conv(x, weight(4, 3, 3, 3), zero, zero, **CONV)
    ).module()
