"""Float operators, movement and pooling, against NumPy; integer arithmetic that was written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.importers.relay import arithmetic
from tests.importers.relay.text import Array, imported, simulate
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.movement import new_shape

RNG = np.random.default_rng(11)
X = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
Q = RNG.integers(-128, 128, (2, 4, 6, 6)).astype(np.int8)
V = RNG.uniform(0.5, 2, 4).astype(np.float32)

Reference = Callable[[Array], Any]


def windows(x: Array, size: int) -> Array:
    return x.reshape(2, 4, 6 // size, size, 6 // size, size)


FLOAT: dict[str, Reference] = {
    "nn.relu(%x)": lambda x: np.maximum(x, 0),
    "clip(%x, a_min=-1f, a_max=0.5f)": lambda x: np.clip(x, -1, 0.5),
    "nn.leaky_relu(%x, alpha=0.2f)": lambda x: np.where(x < 0, x * np.float32(0.2), x),
    "nn.prelu(%x, meta[relay.Constant][0])": lambda x: np.where(x < 0, x * V.reshape(4, 1, 1), x),
    "sigmoid(%x)": lambda x: 1 / (1 + np.exp(-x)),
    "tanh(%x)": np.tanh,
    "sqrt(abs(%x))": lambda x: np.sqrt(np.abs(x)),
    "exp(negative(%x))": lambda x: np.exp(-x),
    "subtract(maximum(%x, 0f), minimum(%x, 1f))": lambda x: np.maximum(x, 0) - np.minimum(x, 1),
    "divide(multiply(%x, 3f), 2f)": lambda x: x * 1.5,
    "nn.softmax(%x, axis=1)": lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
    "nn.batch_norm(%x, meta[relay.Constant][0], meta[relay.Constant][0], meta[relay.Constant][0],"
    " meta[relay.Constant][0], epsilon=0.001f).0": lambda x: (
        (x - V.reshape(4, 1, 1)) / np.sqrt(V.reshape(4, 1, 1) + 1e-3) * V.reshape(4, 1, 1)
        + V.reshape(4, 1, 1)
    ),
    "nn.dropout(%x, rate=0.5f).0": lambda x: x,
    "copy(annotation.stop_fusion(%x))": lambda x: x,
    'cast(cast(%x, dtype="int32"), dtype="float32")': np.trunc,
    "nn.max_pool2d(%x, pool_size=[2, 2], strides=[2, 2])": lambda x: windows(x, 2).max((3, 5)),
    "nn.avg_pool2d(%x, pool_size=[3, 3], strides=[3, 3])": lambda x: windows(x, 3).mean((3, 5)),
    "nn.global_avg_pool2d(%x)": lambda x: x.mean((2, 3), keepdims=True),
    "nn.global_max_pool2d(%x)": lambda x: x.max((2, 3), keepdims=True),
    "nn.adaptive_avg_pool2d(%x, output_size=[1])": lambda x: x.mean((2, 3), keepdims=True),
    "nn.adaptive_avg_pool2d(%x, output_size=[3, 3])": lambda x: windows(x, 2).mean((3, 5)),
    "mean(%x, axis=[2, 3])": lambda x: x.mean((2, 3)),
    "sum(%x, axis=[1], keepdims=True, exclude=True)": lambda x: x.sum((0, 2, 3), keepdims=True),
    "max(%x)": np.max,
    "nn.batch_flatten(%x)": lambda x: x.reshape(2, -1),
    "reshape(%x, newshape=[0, -1, 3])": lambda x: x.reshape(2, -1, 3),
    "transpose(%x, axes=[0, 2, 3, 1])": lambda x: x.transpose(0, 2, 3, 1),
    "transpose(%x)": np.transpose,
    'layout_transform(%x, src_layout="NCHW", dst_layout="NHWC")': lambda x: x.transpose(0, 2, 3, 1),
    "squeeze(expand_dims(%x, axis=-1, num_newaxis=2), axis=[4])": lambda x: x[..., None],
    "concatenate((%x, %x, %x), axis=1)": lambda x: np.concatenate([x] * 3, 1),
    "stack((%x, %x), axis=-1)": lambda x: np.stack([x] * 2, -1),
    "split(%x, indices_or_sections=[1, 3], axis=1).1": lambda x: x[:, 1:3],
    "strided_slice(%x, begin=[0, 1], end=[2, 4], strides=[1, 2])": lambda x: x[:, 1:4:2],
    'strided_slice(%x, begin=[1], end=[-1], strides=[1], slice_mode="size", axes=[2])': lambda x: x[:, :, 1:],
    "take(%x, meta[relay.Constant][1], axis=1)": lambda x: x[:, [3, 0]],
    "nn.pad(%x, 1.5f, pad_width=[[0, 0], [0, 0], [1, 2], [0, 3]])": lambda x: np.pad(
        x, ((0, 0), (0, 0), (1, 2), (0, 3)), constant_values=1.5
    ),
    'nn.pad(%x, pad_width=[[0, 0], [0, 0], [1, 1], [1, 1]], pad_mode="reflect")': lambda x: np.pad(
        x, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect"
    ),
    "nn.upsampling(%x, scale_h=2f, scale_w=2f)": lambda x: x.repeat(2, 2).repeat(2, 3),
    'image.resize2d(%x, size=[3, 3], method="nearest_neighbor",'
    ' coordinate_transformation_mode="asymmetric", rounding_method="floor")': lambda x: x[:, :, ::2, ::2],
    "nn.dense(nn.batch_flatten(%x), ones(shape=[3, 144], dtype=\"float32\"))": lambda x: np.repeat(
        x.reshape(2, -1).sum(1, keepdims=True), 3, 1
    ),
    "nn.bias_add(%x, meta[relay.Constant][0])": lambda x: x + V.reshape(4, 1, 1),
    "where(True, %x, full(2f, shape=[2, 4, 6, 6], dtype=\"float32\"))": lambda x: x,
    "nn.batch_matmul(reshape(%x, newshape=[8, 6, 6]), reshape(%x, newshape=[-3, 6, 6]),"
    " transpose_b=True)": lambda x: x.reshape(8, 6, 6) @ x.reshape(8, 6, 6).transpose(0, 2, 1),
    "nn.layer_norm(%x, ones(shape=[6]), zeros(shape=[6]))": lambda x: (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", FLOAT)
def test_float_operators(call: str) -> None:
    text = f"def @main(%x: Tensor[(2, 4, 6, 6), float32]) {{ {call} }}"
    [found] = simulate(text, [V, np.array([3, 0], np.int64)], X)
    want = np.asarray(FLOAT[call](X))
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("groups", [1, 2])
def test_float_convolution_and_its_transpose(layout: str, groups: int) -> None:
    w = RNG.normal(size=(3, 3, 4 // groups, 6)).astype(np.float32)
    data = X if layout == "NCHW" else X.transpose(0, 2, 3, 1)
    each = [
        arithmetic_conv(X.transpose(0, 2, 3, 1)[..., 2 * g : 2 * g + 2] if groups == 2 else
                        X.transpose(0, 2, 3, 1), w[..., 3 * g : 3 * g + 3] if groups == 2 else w)
        for g in range(groups)
    ]  # fmt: skip
    want = np.concatenate(each, -1)
    text = f"""def @main(%x: Tensor[{data.shape}, float32]) {{
      %0 = nn.conv2d(%x, meta[relay.Constant][0], padding=[1, 1, 1, 1], groups={groups}, channels=6,
                     kernel_size=[3, 3], data_layout="{layout}", kernel_layout="HWIO");
      %1 = nn.conv2d_transpose(%x, ones(shape=[4, 1, 2, 2]), channels=1, kernel_size=[2, 2],
                               strides=[2, 2], padding=[0, 0], data_layout="{layout}");
      (%0, %1) }}"""
    found, up = simulate(text, [w], data)
    last = found if layout == "NHWC" else found.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(last, want, rtol=1e-4, atol=1e-5)
    up = up if layout == "NCHW" else up.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(up, X.sum(1, keepdims=True).repeat(2, 2).repeat(2, 3), rtol=1e-4, atol=1e-5)


def arithmetic_conv(x: Array, w: Array) -> Array:
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [wide[:, i : i + 6, j : j + 6] @ w[i, j] for i in range(3) for j in range(3)]
    return np.asarray(sum(parts))


@pytest.mark.parametrize(
    ("codes", "want"),
    [
        ([4, 0, 2], (4, 3, 2)), ([2, 0, 0], (2, 3, 4)), ([-1, 6], (4, 6)), ([-2], (2, 3, 4)),
        ([2, -2], (2, 3, 4)), ([-3, 4], (6, 4)), ([0, -3], (2, 12)), ([-4, 1, 2, -2], (1, 2, 3, 4)),
        ([2, -4, -1, 3, -2], (2, 1, 3, 4)), ([-2, 1, 1], (2, 3, 4, 1, 1)),
    ],
)  # fmt: skip
def test_codes_of_newshape(codes: list[int], want: tuple[int, ...]) -> None:
    assert tuple(new_shape((2, 3, 4), codes)) == want


@pytest.mark.parametrize(
    "codes", [[-5], [-1, -1], [0, 0, 0, 0], [-4, 2], [-4, 5, 5, 0, 0], [7, -1], [-3, -3]]
)
def test_codes_of_newshape_that_do_not_fit(codes: list[int]) -> None:
    with pytest.raises(InputError):
        new_shape((2, 3, 4), codes)


def test_integers_are_pooled_between_two_casts_without_truncation() -> None:
    text = """def @main(%x: Tensor[(2, 4, 6, 6), int8]) {
      %0 = cast(%x, dtype="int32");
      %1 = nn.avg_pool2d(%0, pool_size=[3, 3], strides=[3, 3], padding=[0, 0, 0, 0]);
      %2 = clip(%1, a_min=-128f, a_max=127f);
      %3 = nn.global_avg_pool2d(%0);
      %4 = mean(%0, axis=[2, 3]);
      (cast(%1, dtype="int8"), cast(%2, dtype="int8"), cast(%3, dtype="int8"), cast(%4, dtype="int8")) }"""
    pooled, clipped, whole, mean = simulate(text, (), Q)
    exact = windows(Q.astype(np.float64), 3).mean((3, 5))
    assert np.abs(pooled - exact).max() <= 0.5
    np.testing.assert_array_equal(pooled, clipped)
    assert np.abs(whole - Q.mean((2, 3), keepdims=True)).max() <= 0.5
    np.testing.assert_array_equal(mean, whole[:, :, 0, 0])
    integer = {
        b.value.op.name for b in imported(text)["main"].body.blocks[0].bindings if hasattr(b.value, "op")
    }
    assert "relax.nn.avg_pool2d" not in integer


def test_arithmetic_that_canonicalization_wrote_out() -> None:
    """What QnnCanonicalize made of conv, bias and requantize: int32 sums and fixed point."""
    q, w = Q[:, :, :4, :4], RNG.integers(-128, 128, (4, 4, 1, 1)).astype(np.int8)
    bias = RNG.integers(-999, 999, (1, 4, 1, 1)).astype(np.int32)
    text = """def @main(%x: Tensor[(2, 4, 4, 4), int8]) {
      %0 = nn.conv2d(%x, meta[relay.Constant][0], channels=4, kernel_size=[1, 1], out_dtype="int32");
      %1 = add(%0, meta[relay.Constant][1]);
      %2 = fixed_point_multiply(%1, multiplier=1395864371, shift=-7);
      %3 = add(%2, 5);
      %4 = clip(%3, a_min=-128f, a_max=127f);
      %5 = cast(%4, dtype="int8");
      %6 = right_shift(left_shift(%1, 2), 3);
      (%5, nn.max_pool2d(%5, pool_size=[2, 2]), nn.relu(%6)) }"""
    found, pooled, shifted = simulate(text, [w, bias], q)
    sums = np.einsum("nchw,oc->nohw", q.astype(np.int64), w[:, :, 0, 0]) + bias
    exact = np.vectorize(lambda s: arithmetic.fixed_point(int(s), 1395864371, -7, "UPWARD"))(sums)
    np.testing.assert_array_equal(found, np.clip(exact + 5, -128, 127))
    assert pooled.shape == (2, 4, 3, 3)
    np.testing.assert_array_equal(shifted, np.maximum((sums << 2) >> 3, 0))


REFUSED = {
    "layout": 'nn.conv2d(%x, %x, data_layout="NCHW16c", kernel_layout="OIHW16i16o")',
    "strides": "nn.max_pool2d(%x, pool_size=[2, 2], strides=[0, 1])",
    "padding": "nn.max_pool2d(%x, pool_size=[2, 2], padding=[-1, 0])",
    "operand 1 is missing": "nn.conv2d(%x)",
    "channels": "nn.conv2d(%x, meta[relay.Constant][0], groups=3)",
    "groups": "nn.conv2d(%x, meta[relay.Constant][0], groups=0)",
    "would have the shape": "nn.avg_pool2d(%x, pool_size=[9, 9])",
    "float32 and int8": "add(%x, %q)",
    "out_dtype": "nn.conv2d(%q, %q)",
    "division of int8": "divide(%q, %q)",
    "padded with": "nn.pad(%q, 300, pad_width=[[0, 0], [0, 0], [0, 0], [1, 1]])",
    "pad_width": "nn.pad(%x, 0f, pad_width=[[0, 0]])",
    "batch_dims": "take(%x, %q, axis=0, batch_dims=1)",
    "permutation": "transpose(%x, axes=[0, 0, 1, 2])",
    "axis 9": "nn.softmax(%x, axis=9)",
    "twice": "mean(%x, axis=[1, -3])",
    "not of length 1": "squeeze(%x, axis=[1])",
    "equal parts": "split(%x, indices_or_sections=4, axis=2)",
    "a stride is 0": "strided_slice(%x, begin=[0], end=[1], strides=[0])",
    "do not have": "nn.batch_norm(%x, %x, %x, %x, %x)",
    "shift": "left_shift(%q, 9)",
    "multiplier": "fixed_point_multiply(%x, multiplier=1, shift=1)",
    "clips to": "clip(%x, a_min=2f, a_max=1f)",
    "a cast to": 'cast(%x, dtype="float8")',
    "no cast of 8": "nn.global_avg_pool2d(%i)",
    "whole number": 'nn.softmax(%x, axis="1")',
    "makes a constant": "zeros(shape=[100000, 100000])",
    "cannot become": "reshape(%x, newshape=[7, -1])",
    "method": 'nn.upsampling(%q, scale_h=2f, scale_w=2f, method="bicubic")',
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_does_not_fit_is_refused_with_its_node(reason: str) -> None:
    text = f"""def @main(%x: Tensor[(2, 4, 6, 6), float32], %q: Tensor[(2, 4, 6, 6), int8],
                        %i: Tensor[(2, 4, 6, 6), int32]) {{
      %0 = {REFUSED[reason]};
      %0 }}"""
    with pytest.raises((InputError, UnsupportedError), match=reason) as error:
        imported(text, [np.ones((4, 4, 3, 3), np.float32)])
    assert str(error.value).startswith("model: node '%0 ")
    assert "\n" not in str(error.value)
