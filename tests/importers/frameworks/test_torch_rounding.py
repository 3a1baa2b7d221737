"""torch's quantization operators, bit for bit beside the formula that the importer names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed

import tvm_qat
from tvm_qat.importers import import_model
from tvm_qat.importers.torch.quant import observed_grid
from tvm_qat.qnn.arithmetic import dequantize, quantize
from tvm_qat.qparams import QParams
from tvm_qat.verification.evaluate import evaluate_module

RNG = np.random.default_rng(0)


def _data(scale: np.float32) -> np.ndarray:
    """Random values, ties and their neighbours, and values far out (beyond int64 per channel wraps)."""
    ties = ((RNG.integers(-300, 300, 20000) + np.float32(0.5)) * scale).astype(np.float32)
    plain = (60 * scale * RNG.standard_normal(80000)).astype(np.float32)
    ends = np.array([0, -0.0, 1e12, -1e12], np.float32) * scale
    return np.concatenate([plain, ties, np.nextafter(ties, np.float32(0)), ends]).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_operators_multiply_by_the_reciprocal_and_round_to_even(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scale, zero_point = np.float32(generator.uniform(1e-3, 0.2)), int(generator.integers(0, 256))
    data = _data(scale)
    params = QParams(scale, zero_point, "uint8")
    expected = dequantize(quantize(data, params, "reciprocal_half_even"), params)
    x, s, z = torch.from_numpy(data), torch.tensor([scale]), torch.tensor([zero_point], dtype=torch.int32)
    ops = torch.ops.quantized_decomposed
    number = (float(scale), zero_point, 0, 255)
    q = ops.quantize_per_tensor(x, *number, torch.uint8)
    q_channel = ops.quantize_per_channel(x[None], s, z, 0, 0, 255, torch.uint8)
    found = {
        "per tensor": torch.fake_quantize_per_tensor_affine(x, *number),
        "tensor parameters": torch.fake_quantize_per_tensor_affine(x, s, z, 0, 255),
        "learnable": torch._fake_quantize_learnable_per_tensor_affine(x, s, z.float(), 0, 255, 1.0),
        "per channel": torch.fake_quantize_per_channel_affine(x[None], s, z, 0, 0, 255)[0],
        "learnable per channel": torch._fake_quantize_learnable_per_channel_affine(
            x[None], s, z.float(), 0, 0, 255, 1.0
        )[0],
        "decomposed": ops.dequantize_per_tensor(q, *number, torch.uint8),
        "decomposed per channel": ops.dequantize_per_channel(q_channel, s, z, 0, 0, 255, torch.uint8)[0],
    }
    for name, values in found.items():
        np.testing.assert_array_equal(values.numpy(), expected, err_msg=name)


def test_fused_operator_makes_its_parameters_from_the_range() -> None:
    least, most = np.array([-1.0, -0.2], np.float32), np.array([0.5, 3.0], np.float32)
    scale, zero_point = observed_grid(least, most, -128, 127, True)
    np.testing.assert_allclose(scale, [1 / 128, 3 / 127], rtol=1e-6)
    assert zero_point.tolist() == [0, 0]
    scale, zero_point = observed_grid(least[:1], most[:1], 0, 255, False)
    assert zero_point.tolist() == [170]


class _Simulated(torch.nn.Module):
    """Fake quantization per channel and nothing else."""

    def __init__(self, scale: np.ndarray, zero_point: np.ndarray, kind: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("zero_point", torch.from_numpy(zero_point).to(kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, 0, 0, 255)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [torch.int32, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("traced", [False, True], ids=["exported", "traced"])
def test_zero_points_per_channel_round_as_their_dtype_does(kind: torch.dtype, traced: bool) -> None:
    """Imported and compiled: torch adds float zero points before it rounds, and fuses those of float32."""
    scale = RNG.uniform(1e-3, 0.2, 4).astype(np.float32)
    data = np.stack([_data(each) for each in scale])
    model = _Simulated(scale, RNG.integers(0, 256, 4), kind).eval()
    x = torch.from_numpy(data)
    expected = model(x).numpy()
    source = torch.jit.trace(model, x) if traced else torch.export.export(model, (x,))
    mod = import_model(source, input_shapes={"x": list(data.shape)})
    np.testing.assert_array_equal(evaluate_module(mod, [data])[0], expected)
    (found,) = tvm_qat.compile(mod, "llvm").run({"x": data}).values()
    np.testing.assert_array_equal(found, expected)
