"""Whole networks in the forms that TVM's frontends printed, simulated and compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.relay import arithmetic
from tests.importers.relay.text import Array, params_bytes, program
from tvm_qat.cli import main

RNG = np.random.default_rng(5)
W1 = RNG.integers(-127, 128, (3, 3, 3, 8)).astype(np.int8)
B1 = RNG.integers(-800, 800, 8).astype(np.int32)
S1 = (RNG.uniform(0.5, 1.5, 8) * 4e-5).astype(np.float32)
W2 = RNG.integers(-127, 128, (1, 1, 8, 8)).astype(np.int8)
W3 = RNG.integers(-127, 128, (5, 8)).astype(np.int8)
IMAGES = RNG.integers(-128, 128, (100, 8, 8, 3)).astype(np.int8)

TFLITE = """def @main(%input: Tensor[(1, 8, 8, 3), int8] /* ty=Tensor[(1, 8, 8, 3), int8] span=input:0:0 */,
    %v_param_1: Tensor[(3, 3, 3, 8), int8], %v_param_2: Tensor[(8), int32],
    output_tensor_names=["Identity"]) -> Tensor[(1, 5), int8] {
  %0 = qnn.conv2d(%input, %v_param_1, -3 /* ty=int32 */, 0 /* ty=int32 */, 0.02f /* ty=float32 */,
      meta[relay.Constant][0] /* ty=Tensor[(8), float32] */, padding=[1, 1, 1, 1], channels=8,
      kernel_size=[3, 3], data_layout="NHWC", kernel_layout="HWIO", out_dtype="int32") /* span=conv1:0:0 */;
  %1 = nn.bias_add(%0, %v_param_2, axis=3) /* ty=Tensor[(1, 8, 8, 8), int32] span=conv1:0:0 */;
  %2 = qnn.requantize(%1, meta[relay.Constant][0], 0, 0.05f, -128, axis=3, out_dtype="int8");
  %3 = clip(%2, a_min=-128f, a_max=127f) /* ty=Tensor[(1, 8, 8, 8), int8] */;
  %4 = qnn.conv2d(%3, meta[relay.Constant][1], -128, 0, 0.05f, 0.003f, padding=[0, 0, 0, 0], channels=8,
      kernel_size=[1, 1], data_layout="NHWC", kernel_layout="HWIO", out_dtype="int32");
  %5 = qnn.requantize(%4, 0.00015f, 0, 0.04f, 2, axis=3, rounding="TONEAREST", out_dtype="int8");
  %6 = qnn.add(%3, %5, 0.05f, -128, 0.04f, 2, 0.0613f, -20);
  %7 = cast(%6, dtype="int32");
  %8 = nn.avg_pool2d(%7, pool_size=[8, 8], padding=[0, 0, 0, 0], layout="NHWC");
  %9 = cast(%8, dtype="int8");
  %10 = reshape(%9, newshape=[-1, 8]);
  %11 = qnn.dense(%10, meta[relay.Constant][2], -20, 0, 0.0613f, 0.004f, units=5, out_dtype="int32");
  qnn.requantize(%11, 0.00024f, 0, 0.04f, 1, axis=1, out_dtype="int8")
}"""


def relay(x: Array) -> tuple[Array, list[Array]]:
    """What Relay computes for TFLITE but for its double rounding and truncation; logits, layers."""
    sums = arithmetic.conv2d_nhwc(x, W1, (-3, 0), 1, 1) + B1
    first = arithmetic.requantize(sums, S1, 0, 0.05, -128, "int8", axis=3)
    sums = arithmetic.conv2d_nhwc(first, W2, (-128, 0), 1, 0)
    second = arithmetic.requantize(sums, 0.00015, 0, 0.04, 2, "int8", rounding="TONEAREST")
    real = arithmetic.dequantize(first, 0.05, -128) + arithmetic.dequantize(second, 0.04, 2)
    total = np.clip(np.rint(real / np.float32(0.0613)) - 20, -128, 127)
    pooled = np.rint(total.mean((1, 2)))
    sums = (pooled.astype(np.int64) + 20) @ W3.astype(np.int64).T
    return arithmetic.requantize(sums, 0.00024, 0, 0.04, 1, "int8"), [first, second]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model, params = tmp_path / "net.relay", tmp_path / "net.params"
    model.write_bytes(program(TFLITE, [S1, W2, W3]))
    params.write_bytes(params_bytes({"v_param_1": W1, "v_param_2": B1}))
    return model, params


def test_a_network_from_the_tflite_frontend(files: tuple[Path, Path]) -> None:
    package = tq.compile(files[0], params=files[1], target="native")
    assert package.totals["int8_mac_share"] == 1.0
    assert package.totals["float_operators"] == 0
    found = np.concatenate([package.run({"input": image[None]})["output"] for image in IMAGES])
    want, _ = relay(IMAGES)
    assert np.abs(found.astype(int) - want.astype(int)).max() <= 1
    assert np.mean(found == want) > 0.98
    agree = found.argmax(1) == want.argmax(1)
    top = np.sort(want.astype(int), axis=1)
    assert np.all(agree | (top[:, -1] - top[:, -2] <= 1))


def test_layers_have_the_bits_of_relay(files: tuple[Path, Path]) -> None:
    text = TFLITE.replace('qnn.requantize(%11, 0.00024f, 0, 0.04f, 1, axis=1, out_dtype="int8")', "(%3, %5)")
    text = text[: text.index("%6 = ")] + text[text.index("(%3, %5)") :]
    files[0].write_bytes(program(text, [S1, W2]))
    package = tq.compile(files[0], params=files[1], target="native")
    for image in IMAGES:
        found = package.run({"input": image[None]})
        for have, want in zip(found.values(), relay(image[None])[1], strict=True):
            np.testing.assert_array_equal(have, want)


QDQ = """def @main(%x: Tensor[(?, 3, 8, 8), float32]) -> Tensor[(?, 5), float32] {
  %0 = qnn.quantize(%x, 0.02f, 3, out_dtype="uint8");
  %1 = qnn.dequantize(%0, 0.02f, 3);
  %2 = qnn.dequantize(meta[relay.Constant][0], meta[relay.Constant][1], 0, axis=0);
  %3 = nn.conv2d(%1, %2, padding=[1, 1, 1, 1], channels=8, kernel_size=[3, 3]);
  %4 = nn.bias_add(%3, meta[relay.Constant][2]);
  %5 = nn.batch_norm(%4, ones(shape=[8]), zeros(shape=[8]), zeros(shape=[8]), ones(shape=[8]));
  %6 = nn.relu(%5.0);
  %7 = qnn.quantize(%6, 0.05f, 0, out_dtype="uint8");
  %8 = qnn.dequantize(%7, 0.05f, 0);
  %9 = nn.global_avg_pool2d(%8);
  %10 = qnn.quantize(nn.batch_flatten(nn.dropout(%9).0), 0.03f, 0, out_dtype="uint8");
  %11 = nn.dense(qnn.dequantize(%10, 0.03f, 0), qnn.dequantize(meta[relay.Constant][3], 0.004f, 0), units=5);
  qnn.dequantize(qnn.quantize(%11, 0.02f, 1), 0.02f, 1)
}"""


def test_fake_quantization_before_relay_folded_it(tmp_path: Path) -> None:
    scale = (RNG.uniform(0.5, 1.5, 8) * 2e-3).astype(np.float32)
    bias = RNG.normal(size=8).astype(np.float32)
    model = tmp_path / "qdq.txt"
    model.write_bytes(program(QDQ, [W1.transpose(3, 2, 0, 1), scale, bias, W3]))
    package = tq.compile(model, target="native")
    assert package.totals["int8_mac_share"] == 1.0
    assert package.totals["float_operators"] == 0
    images = RNG.normal(0, 2, (20, 3, 8, 8)).astype(np.float32)
    found = package.run({"x": images})["output"]
    q = arithmetic.quantize(images, 0.02, 3, "uint8").transpose(0, 2, 3, 1)
    sums = arithmetic.conv2d_nhwc(q, W1, (3, 0), 1, 1)
    real = np.maximum((sums * np.float64(0.02) * scale + bias) / np.sqrt(1 + 1e-5), 0)
    hidden = arithmetic.quantize(real.astype(np.float32), 0.05, 0, "uint8") * 0.05
    pooled = arithmetic.quantize(hidden.mean((1, 2)).astype(np.float32), 0.03, 0, "uint8")
    want = arithmetic.quantize((pooled * 0.03) @ (W3.T * 0.004), 0.02, 1, "int8")
    assert np.abs(found / 0.02 + 1 - want).max() <= 1.01


def test_the_command_line_takes_parameters(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, params = map(str, files)
    target = str(tmp_path / "net.tar")
    assert main(["compile", model, "--params", params, "-o", target]) == 0
    assert main(["inspect", model, "--params", params]) == 0
    assert main(["inspect", model, "--params", model]) == 4
