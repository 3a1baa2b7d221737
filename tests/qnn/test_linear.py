"""Sums of products against onnxruntime, and against loops that say what a convolution is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.qnn.foreign import onnxruntime_node
from tvm_qat.errors import UnsupportedError
from tvm_qat.qnn import linear

LAYOUTS = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}
DTYPES = [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8"), ("int16", "int8")]


def integers(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def naive_conv(x, w, strides, padding, dilation, groups):
    """NC..., OI... of plain integers: every output element is a sum over its window."""
    spatial = x.ndim - 2
    sizes = []
    for i in range(spatial):
        room = x.shape[2 + i] + padding[i] + padding[i + spatial] - (w.shape[2 + i] - 1) * dilation[i]
        sizes.append((room - 1) // strides[i] + 1)
    result = np.zeros((x.shape[0], w.shape[0], *sizes), np.int64)
    outputs_per_group, inputs_per_group = w.shape[0] // groups, w.shape[1]
    for index in np.ndindex(*result.shape):
        batch, channel, *position = index
        first = channel // outputs_per_group * inputs_per_group
        for inner, *tap in np.ndindex(*w.shape[1:]):
            at = [position[i] * strides[i] + tap[i] * dilation[i] - padding[i] for i in range(spatial)]
            if all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True)):
                result[index] += int(x[(batch, first + inner, *at)]) * int(w[(channel, inner, *tap)])
    return result


WINDOWS = [
    # spatial shape, kernel, strides, padding, dilation
    ((7,), (3,), (1,), (1, 1), (1,)),
    ((9,), (2,), (2,), (0, 3), (3,)),
    ((5, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((5, 6), (3, 2), (2, 3), (0, 2, 1, 0), (1, 1)),
    ((6, 7), (2, 3), (1, 2), (2, 0, 1, 1), (2, 3)),
    ((4, 4), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((3, 4, 5), (2, 2, 3), (1, 2, 1), (1, 0, 1, 0, 1, 1), (1, 1, 1)),
    ((5, 4, 4), (2, 1, 2), (2, 1, 2), (0, 0, 1, 1, 0, 0), (2, 1, 2)),
]
GROUPS = [(3, 4, 1), (4, 6, 2), (4, 4, 4), (2, 6, 2)]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(("inputs", "outputs", "groups"), GROUPS)
def test_convolution_is_what_loops_over_the_centred_values_give(rng, window, inputs, outputs, groups):
    shape, kernel, strides, padding, dilation = window
    for data_dtype, weight_dtype in DTYPES:
        x = integers(rng, data_dtype, 2, inputs, *shape)
        w = integers(rng, weight_dtype, outputs, inputs // groups, *kernel)
        x_zero = integers(rng, data_dtype)
        w_zero = integers(rng, weight_dtype, outputs)
        data_layout, kernel_layout = LAYOUTS[len(shape)]
        got = linear.conv(
            x, w, x_zero, w_zero, strides=strides, padding=padding, dilation=dilation, groups=groups,
            data_layout=data_layout, kernel_layout=kernel_layout,
        )  # fmt: skip
        centred = w.astype(np.int64) - w_zero.reshape(-1, *[1] * (w.ndim - 1)).astype(np.int64)
        expected = naive_conv(x.astype(np.int64) - int(x_zero), centred, strides, padding, dilation, groups)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("window", [w for w in WINDOWS if len(w[0]) == 2], ids=str)
@pytest.mark.parametrize(("inputs", "outputs", "groups"), GROUPS)
def test_conv2d_is_onnxruntimes_conv_integer(rng, window, inputs, outputs, groups):
    shape, kernel, strides, padding, dilation = window
    x, w = (
        integers(rng, "uint8", 2, inputs, *shape),
        integers(rng, "uint8", outputs, inputs // groups, *kernel),
    )
    zero_points = np.array(131, np.uint8), np.array(7, np.uint8)
    expected = onnxruntime_node(
        "ConvInteger", {"x": x, "w": w, "xz": zero_points[0], "wz": zero_points[1]}, "int32", opset=10,
        strides=strides, pads=padding, dilations=dilation, group=groups,
    )  # fmt: skip
    got = linear.conv(
        x, w, *zero_points, strides=strides, padding=padding, dilation=dilation, groups=groups,
        data_layout="NCHW", kernel_layout="OIHW",
    )  # fmt: skip
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("layouts", [("NHWC", "OHWI"), ("NHWC", "HWIO"), ("NCHW", "OHWI"), ("NHWC", "OIHW")])
def test_layout_moves_values_and_changes_none(rng, layouts):
    data_layout, kernel_layout = layouts
    x, w, w_zero = (
        integers(rng, "uint8", 2, 4, 5, 6),
        integers(rng, "int8", 6, 2, 3, 2),
        integers(rng, "int8", 6),
    )
    attrs = {"strides": [1, 2], "padding": [1, 0, 2, 1], "dilation": [1, 1], "groups": 2}
    plain = linear.conv(x, w, 9, w_zero, data_layout="NCHW", kernel_layout="OIHW", **attrs)
    laid_x = x.transpose(["NCHW".index(c) for c in data_layout])
    laid_w = w.transpose(["OIHW".index(c) for c in kernel_layout])
    layouts = {"data_layout": data_layout, "kernel_layout": kernel_layout}
    moved = linear.conv(laid_x, laid_w, 9, w_zero, **layouts, **attrs)
    np.testing.assert_array_equal(moved, plain.transpose(["NCHW".index(c) for c in data_layout]))


TRANSPOSED = [
    # kernel, strides, padding, output_padding, dilation
    ((3, 3), (1, 1), (0, 0, 0, 0), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (1, 1)),
    ((2, 4), (2, 3), (0, 1, 1, 2), (1, 2), (1, 1)),
    ((3, 2), (1, 2), (2, 0, 0, 1), (0, 1), (2, 3)),
    ((1, 1), (3, 2), (0, 0, 0, 0), (2, 1), (1, 1)),
    ((2, 2), (3, 3), (0, 0, 0, 0), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("window", TRANSPOSED, ids=str)
@pytest.mark.parametrize(("inputs", "per_group", "groups"), [(3, 2, 1), (4, 3, 2), (3, 1, 3)])
def test_conv2d_transpose_is_onnxruntimes_on_centred_integers(rng, window, inputs, per_group, groups):
    """Exact in onnxruntime's float32: every partial sum of these integers is below 2^24."""
    kernel, strides, padding, output_padding, dilation = window
    x, w = integers(rng, "uint8", 2, inputs, 4, 5), integers(rng, "int8", inputs, per_group, *kernel)
    w_zero = integers(rng, "int8", per_group)
    x_real = x.astype(np.float32) - 13
    w_real = w.astype(np.float32) - w_zero.astype(np.float32).reshape(-1, 1, 1)
    expected = onnxruntime_node(
        "ConvTranspose", {"x": x_real, "w": w_real}, "float32", strides=strides, pads=padding,
        dilations=dilation, output_padding=output_padding, group=groups,
    )  # fmt: skip
    attrs = {"strides": strides, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    got = linear.conv2d_transpose(
        x, w, np.array(13), w_zero, groups=groups, data_layout="NCHW", kernel_layout="IOHW", **attrs
    )
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)
    last = linear.conv2d_transpose(
        x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1), np.array(13), w_zero, groups=groups,
        data_layout="NHWC", kernel_layout="IHWO", **attrs,
    )  # fmt: skip
    np.testing.assert_array_equal(last, got.transpose(0, 2, 3, 1))


def test_dense_is_the_product_of_centred_integers(rng):
    for (data, weight), shape in product(DTYPES, [(3, 7), (2, 3, 7), (7,)]):
        x, w = integers(rng, data, *shape), integers(rng, weight, 5, 7)
        x_zero, w_zero = integers(rng, data), integers(rng, weight, 5)
        expected = (x.astype(np.int64) - int(x_zero)) @ (
            w.astype(np.int64) - w_zero.astype(np.int64)[:, None]
        ).T
        np.testing.assert_array_equal(linear.dense(x, w, x_zero, w_zero), expected)


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4), (2, 4, 5)), ((1, 3, 4), (6, 4, 5)), ((2, 1, 3, 4), (3, 4, 2))], ids=str
)
def test_batch_matmul_is_the_product_of_centred_integers(rng, shapes):
    for left, right in DTYPES:
        x, y = integers(rng, left, *shapes[0]), integers(rng, right, *shapes[1])
        x_zero, y_zero = integers(rng, left), integers(rng, right)
        expected = (x.astype(np.int64) - int(x_zero)) @ (y.astype(np.int64) - int(y_zero))
        np.testing.assert_array_equal(linear.batch_matmul(x, y, x_zero, y_zero), expected)


def test_dense_is_onnxruntimes_matmul_integer(rng):
    x, w, x_zero, w_zero = (integers(rng, "uint8", *s) for s in ((3, 7), (7, 5), (), (5,)))
    expected = onnxruntime_node(
        "MatMulInteger", {"x": x, "w": w, "xz": x_zero, "wz": w_zero}, "int32", opset=10
    )
    np.testing.assert_array_equal(linear.dense(x, w.T, x_zero, w_zero), expected)


def test_sums_are_exact_up_to_the_ends_of_int32():
    x, y = np.full((1, 1, 2), -32768, np.int16), np.full((1, 2, 1), 32767, np.int16)
    assert linear.batch_matmul(x, y, np.array(0), np.array(0)).item() == -2 * 32768 * 32767
    least = linear.batch_matmul(x, -y - 1, np.array(0), np.array(32767 - 32768))
    assert least.item() == -2 * 32768 * -32767


def test_an_accumulator_beyond_int32_is_an_error():
    x, y = np.full((1, 1, 3), -32768, np.int16), np.full((1, 3, 1), 32767, np.int16)
    with pytest.raises(UnsupportedError, match="an int32 accumulator overflows"):
        linear.batch_matmul(x, y, np.array(0), np.array(0))
