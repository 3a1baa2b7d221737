"""Relay's qnn operators, against its documented arithmetic in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.importers.relay import arithmetic
from tests.importers.relay.text import Array, simulate
from tvm_qat.errors import InputError, UnsupportedError

RNG = np.random.default_rng(7)
X = RNG.integers(-128, 128, (2, 6, 6, 3)).astype(np.int8)
W = RNG.integers(-128, 128, (3, 3, 3, 4)).astype(np.int8)
TIES = np.concatenate([np.arange(-2000, 2000), [-(2**31), 2**31 - 1, -(2**30), 2**30]]).astype(np.int32)


def steps(x: Array, y: Array) -> int:
    return int(np.abs(x.astype(np.int64) - y.astype(np.int64)).max())


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.0078125, 0.013, 1.5])
@pytest.mark.parametrize("attrs", ["", ', rounding="UPWARD"', ', rounding="UPWARD", compute_dtype="int64"'])
def test_upward_requantize_has_relays_bits(scale: float, attrs: str) -> None:
    x = np.clip(TIES, -(2**30), 2**30 - 1) if scale > 1 else TIES
    text = f"""def @main(%x: Tensor[({x.size}), int32]) {{
      qnn.requantize(%x, {scale}f, 0, 1f, -3{attrs}, out_dtype="int8") }}"""
    [found] = simulate(text, (), x)
    np.testing.assert_array_equal(found, arithmetic.requantize(x, scale, 0, 1.0, -3, "int8"))


def test_tonearest_requantize_has_relays_bits() -> None:
    text = f"""def @main(%x: Tensor[({TIES.size}), int32]) {{
      qnn.requantize(%x, 0.25f, 0, 1f, 0, rounding="TONEAREST", out_dtype="int32") }}"""
    [found] = simulate(text, (), TIES)
    want = arithmetic.requantize(TIES, 0.25, 0, 1.0, 0, "int32", rounding="TONEAREST")
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("rounding", ["UPWARD", "TONEAREST"])
def test_requantize_in_float(rounding: str) -> None:
    text = f"""def @main(%x: Tensor[({TIES.size}), int32]) {{
      qnn.requantize(%x, 0.0625f, 0, 1f, 0, rounding="{rounding}", compute_dtype="float32",
                     out_dtype="int16") }}"""
    [found] = simulate(text, (), TIES)
    want = arithmetic.requantize(TIES, 0.0625, 0, 1.0, 0, "int16", rounding=rounding)
    np.testing.assert_array_equal(found, want)


def test_requantize_per_channel() -> None:
    x = RNG.integers(-30000, 30000, (2, 5, 3)).astype(np.int32)
    scale = np.array([0.01, 0.002, 0.03, 0.4, 0.0005], np.float32)
    text = """def @main(%x: Tensor[(2, 5, 3), int32]) {
      qnn.requantize(%x, meta[relay.Constant][0], 0, 0.5f, 4, axis=1, out_dtype="uint8") }"""
    [found] = simulate(text, [scale], x)
    np.testing.assert_array_equal(found, arithmetic.requantize(x, scale, 0, 0.5, 4, "uint8", axis=1))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize_rounds_half_away_from_zero(dtype: str) -> None:
    x = np.concatenate([np.arange(-40, 40) / 8, RNG.normal(0, 20, 100)]).astype(np.float32)
    text = f"""def @main(%x: Tensor[({x.size}), float32]) {{
      qnn.quantize(%x, 0.25f, 5, out_dtype="{dtype}", axis=0) }}"""
    [found] = simulate(text, (), x)
    np.testing.assert_array_equal(found, arithmetic.quantize(x, 0.25, 5, dtype))


def test_dequantize_per_channel() -> None:
    scale, zero_point = np.array([0.5, 0.25, 2], np.float32), np.array([1, -2, 0], np.int32)
    text = """def @main(%x: Tensor[(2, 6, 6, 3), int8]) {
      qnn.dequantize(%x, meta[relay.Constant][0], meta[relay.Constant][1], axis=-1) }"""
    [found] = simulate(text, [scale, zero_point], X)
    np.testing.assert_array_equal(found, arithmetic.dequantize(X, scale, zero_point))


CONV = """strides=[2, 2], padding=[1, 1, 1, 1], channels=4, kernel_size=[3, 3],
    data_layout="{data}", kernel_layout="{kernel}", out_dtype="int32\""""


@pytest.mark.parametrize("kernel", ["HWIO", "HWOI", "OIHW", "OHWI"])
def test_conv2d_in_every_layout_of_the_weight(kernel: str) -> None:
    want = arithmetic.conv2d_nhwc(X, W, (-7, 3), 2, 1)
    weight = W.transpose(["HWIO".index(axis) for axis in kernel])
    text = f"""def @main(%x: Tensor[(2, 6, 6, 3), int8]) {{
      qnn.conv2d(%x, meta[relay.Constant][0], -7, 3, 0.5f, 0.25f,
                 {CONV.format(data="NHWC", kernel=kernel)}) }}"""
    [found] = simulate(text, [weight], X)
    np.testing.assert_array_equal(found, want)


def test_conv2d_of_channels_first() -> None:
    want = arithmetic.conv2d_nhwc(X, W, (-7, 0), 2, 1).transpose(0, 3, 1, 2)
    text = """def @main(%x: Tensor[(2, 3, 6, 6), int8]) {
      qnn.conv2d(%x, meta[relay.Constant][0], -7, 0, 0.5f, 0.25f, strides=[2, 2], padding=[1, 1],
                 channels=4, kernel_size=[3, 3], out_dtype="int32") }"""
    [found] = simulate(text, [W.transpose(3, 2, 0, 1)], X.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_depthwise_weights_hold_channels_times_multiplier(multiplier: int, layout: str) -> None:
    w = RNG.integers(-128, 128, (3, 3, 3, multiplier)).astype(np.int8)
    each = [arithmetic.conv2d_nhwc(X[..., c : c + 1], w[:, :, c : c + 1], (2, 0), 1, 1) for c in range(3)]
    want = np.concatenate(each, axis=3)
    last = layout == "NHWC"
    weight, data = (w, X) if last else (w.transpose(2, 3, 0, 1), X.transpose(0, 3, 1, 2))
    text = f"""def @main(%x: Tensor[{data.shape}, int8]) {{
      qnn.conv2d(%x, meta[relay.Constant][0], 2, 0, 0.5f, 0.25f, padding=[1, 1, 1, 1], groups=3,
                 channels={3 * multiplier}, kernel_size=[3, 3], data_layout="{layout}",
                 kernel_layout="{"HWOI" if last else "OIHW"}", out_dtype="int32") }}"""
    [found] = simulate(text, [weight], data)
    np.testing.assert_array_equal(found, want if last else want.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("layout", ["IOHW", "OIHW"])
def test_conv2d_transpose_whose_axes_old_versions_named_the_other_way(layout: str) -> None:
    x = RNG.integers(-128, 128, (1, 2, 3, 3)).astype(np.int8)
    w = RNG.integers(-128, 128, (2, 5, 2, 2)).astype(np.int8)
    want = np.zeros((1, 5, 6, 6), np.int64)
    for i, j in np.ndindex(2, 2):
        want[:, :, i::2, j::2] = np.einsum("nchw,co->nohw", x.astype(np.int64) - 4, w[:, :, i, j])
    text = f"""def @main(%x: Tensor[(1, 2, 3, 3), int8]) {{
      qnn.conv2d_transpose(%x, meta[relay.Constant][0], 4, 0, 0.5f, 0.5f, channels=5, kernel_size=[2, 2],
          strides=[2, 2], padding=[0, 0, 0, 0], kernel_layout="{layout}", out_dtype="int32") }}"""
    [found] = simulate(text, [w], x)
    np.testing.assert_array_equal(found, want)


def test_dense_and_its_packed_form() -> None:
    x = RNG.integers(-128, 128, (3, 8)).astype(np.int8)
    w = RNG.integers(-128, 128, (32, 8)).astype(np.int8)
    want = (x.astype(np.int64) - 5) @ (w.astype(np.int64) + 2).T
    tail = "5, -2, 0.5f, 0.25f"
    dense = f'qnn.dense(%x, meta[relay.Constant][0], {tail}, units=32, out_dtype="int32")'
    packed = f"""qnn.contrib_dense_pack(%x, meta[relay.Constant][0], {tail}, units=32,
        out_dtype="int32", weight_layout="{{}}")"""
    forms = {
        dense: w,
        packed.format("NC16n"): w.reshape(2, 16, 8).transpose(0, 2, 1),
        packed.format("NC16n4c"): w.reshape(2, 16, 2, 4).transpose(0, 2, 1, 3),
    }
    for call, weight in forms.items():
        [found] = simulate(f"def @main(%x: Tensor[(3, 8), int8]) {{ {call} }}", [weight], x)
        np.testing.assert_array_equal(found, want)


def test_batch_matmul_is_transposed_on_the_right() -> None:
    x, y = (RNG.integers(-128, 128, (2, n, 4)).astype(np.int8) for n in (3, 5))
    text = """def @main(%x: Tensor[(2, 3, 4), int8], %y: Tensor[(2, 5, 4), int8]) {
      qnn.batch_matmul(%x, %y, 1, -2, 0.5f, 0.5f, transpose_b=True, out_dtype="int32") }"""
    [found] = simulate(text, (), x, y)
    want = np.einsum("bmk,bnk->bmn", x.astype(np.int64) - 1, y.astype(np.int64) + 2)
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("name", ["add", "subtract", "mul"])
def test_elementwise_is_within_a_step_of_relays_double_rounding(name: str) -> None:
    a, b = (RNG.integers(-128, 128, 4096).astype(np.int8) for _ in range(2))
    x, y = arithmetic.dequantize(a, 0.03, 4), arithmetic.dequantize(b, 0.05, -9)
    real = {"add": np.add, "subtract": np.subtract, "mul": np.multiply}[name](x, y)
    text = f"""def @main(%a: Tensor[(4096), int8], %b: Tensor[(4096), int8]) {{
      qnn.{name}(%a, %b, 0.03f, 4, 0.05f, -9, 0.09f, 1, lhs_axis=-1, rhs_axis=-1) }}"""
    [found] = simulate(text, (), a, b)
    exact = np.clip(real.astype(np.float64) / np.float64(np.float32(0.09)) + 1, -128, 127)
    assert np.abs(found - exact).max() <= 0.5 + 1e-4
    if name == "add":
        parts = [
            arithmetic.requantize(q, s, z, 0.09, 1, "int32") for q, s, z in ((a, 0.03, 4), (b, 0.05, -9))
        ]
        assert steps(found, np.clip(parts[0] + parts[1] - 1, -128, 127)) <= 1


def test_concatenate_brings_its_parts_onto_one_grid() -> None:
    a, b = (RNG.integers(0, 256, (2, 3)).astype(np.uint8) for _ in range(2))
    text = """def @main(%a: Tensor[(2, 3), uint8], %b: Tensor[(2, 3), uint8]) {
      %0 = (%a, %b); %1 = (0.5f, 0.25f); %2 = (3, 128);
      qnn.concatenate(%0, %1, %2, 0.75f, 7, axis=1) }"""
    [found] = simulate(text, (), a, b)
    want = [arithmetic.requantize(q, s, z, 0.75, 7, "uint8") for q, s, z in ((a, 0.5, 3), (b, 0.25, 128))]
    assert steps(found, np.concatenate(want, axis=1)) <= 1


UNARY = {
    "tanh": np.tanh,
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "abs": np.abs,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "leaky_relu": lambda x: np.where(x < 0, x * 0.1, x),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "log": np.log,
    "erf": np.vectorize(math.erf),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor_are_rounded_once(name: str) -> None:
    positive = name in ("sqrt", "rsqrt", "log")
    zero, dtype = (-128, "int8") if positive else (128, "uint8")
    alpha = ", alpha=0.1f" if name == "leaky_relu" else ""
    text = f"""def @main(%x: Tensor[(256), {dtype}]) {{ qnn.{name}(%x, 0.02f, {zero}, 0.03f, 10{alpha}) }}"""
    data = np.arange(256).clip(1, 255) - 128 if positive else np.arange(256)
    [found] = simulate(text, (), data.astype(dtype))
    real = UNARY[name](arithmetic.dequantize(data, 0.02, zero).astype(np.float64))
    assert steps(found, arithmetic.quantize(np.asarray(real), 0.03, 10, dtype)) <= 1


def test_softmax_and_avg_pool() -> None:
    text = """def @main(%x: Tensor[(2, 6, 6, 3), int8]) {
      %0 = qnn.avg_pool2d(%x, 0.5f, 3, 0.25f, -4, pool_size=[2, 2], strides=[2, 2], padding=[0, 0, 0, 0],
                          layout="NHWC");
      %1 = qnn.softmax(%x, 0.1f, 3, 0.00390625f, -128, axis=3);
      (%0, %1) }"""
    pooled, soft = simulate(text, (), X)
    means = arithmetic.dequantize(X, 0.5, 3).reshape(2, 3, 2, 3, 2, 3).mean(axis=(2, 4))
    assert steps(pooled, arithmetic.quantize(means, 0.25, -4, "int8")) <= 1
    e = np.exp(arithmetic.dequantize(X, 0.1, 3))
    assert steps(soft, arithmetic.quantize(e / e.sum(-1, keepdims=True), 1 / 256, -128, "int8")) <= 1


def test_simulated_quantization_is_quantization() -> None:
    x = RNG.normal(0, 5, 64).astype(np.float32)
    text = """def @main(%x: Tensor[(64), float32]) {
      %0 = qnn.simulated_quantize(%x, 1, 0.1f, 3);
      %1 = qnn.simulated_dequantize(%0, 1, 0.1f, 3);
      %2 = qnn.simulated_quantize(%x, 0, 0.1f, 3);
      (%1, %2) }"""
    found, off = simulate(text, (), x)
    want = arithmetic.dequantize(arithmetic.quantize(x, 0.1, 3, "int8"), 0.1, 3)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(off, x)


def test_products_of_scales_are_folded_as_relay_left_them() -> None:
    scale = np.array([0.01, 0.02, 0.03], np.float32)
    x = RNG.integers(-9000, 9000, (4, 3)).astype(np.int32)
    text = """def @main(%x: Tensor[(4, 3), int32]) {
      %0 = power(2f /* ty=float32 */, -3f /* ty=float32 */) /* ty=float32 */;
      %1 = multiply(%0, meta[relay.Constant][0]);
      %2 = reshape(%1, newshape=[-1]);
      qnn.requantize(%x, %2, 0, 0.5f, 0, axis=1, out_dtype="int8") }"""
    [found] = simulate(text, [scale.reshape(1, 3)], x)
    np.testing.assert_array_equal(found, arithmetic.requantize(x, scale / 8, 0, 0.5, 0, "int8", axis=1))


BAD = {
    "scale": "qnn.quantize(%x, 0f, 0)",
    "not finite": "qnn.quantize(%x, inff, 0)",
    "zero point": "qnn.quantize(%x, 1f, 300)",
    "per-channel": 'qnn.quantize(%x, meta[relay.Constant][0], 0, out_dtype="int8", axis=7)',
    "channel": 'qnn.quantize(%x, meta[relay.Constant][0], 0, out_dtype="int8", axis=0)',
    "int64": 'qnn.quantize(%x, 1f, 0, out_dtype="int64")',
    "run time": "qnn.quantize(%x, %s, 0)",
    "rounding": 'qnn.requantize(%q, 1f, 0, 1f, 0, rounding="DOWN")',
    "operand 2": "qnn.quantize(%x, 1f)",
    "not a tensor": "qnn.quantize((%x, %x), 1f, 0)",
    "summed": 'qnn.dense(%q, %q, 0, 0, 1f, 1f, out_dtype="int16")',
    "zero points": 'qnn.dense(%q, %q, 70000, 0, 1f, 1f, out_dtype="int32")',
    "is computed": 'qnn.dense(%q, %q, %z, 0, 1f, 1f, out_dtype="int32")',
    "code": "qnn.simulated_quantize(%x, 9, 1f, 0)",
    "simulated": "qnn.simulated_dequantize(%x, 1, 1f, 0)",
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_parameters_name_file_node_and_line(reason: str) -> None:
    text = f"""def @main(%x: Tensor[(2, 3), float32], %q: Tensor[(2, 3), int8], %s: float32, %z: int32) {{
      %0 = {BAD[reason]};
      %0 }}"""
    with pytest.raises(
        InputError, match=reason if reason not in ("channel", "per-channel") else "axis|channel"
    ) as e:
        simulate(text, [np.ones(5, np.float32)])
    assert str(e.value).startswith("model: node '%0 qnn.")
    assert "line 3" in str(e.value)
    assert "\n" not in str(e.value)


def test_unknown_operators_are_listed_together() -> None:
    text = """def @main(%x: Tensor[(2), float32]) {
      %0 = nn.lrn(%x); %1 = vision.yolo(%0); %2 = fn (%p) { invert(nn.relu(%p)) }; nn.lrn(%2(%1)) }"""
    with pytest.raises(UnsupportedError) as e:
        simulate(text)
    listed = "invert ('line 3 invert'), nn.lrn ('%0 nn.lrn', 'line 3 nn.lrn'), vision.yolo ('%1 vision.yolo')"
    assert f"operators without a translation: {listed};" in str(e.value)
