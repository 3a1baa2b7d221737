"""PyTorch beside us, on the CPU: what is measured there is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bench_models.transformers import Attention, FusedAttention
from on_gpu import peers, work
from on_gpu.make import gemm
from on_gpu.parts import Description, Part, store

from tvm_qat.package.target import parse_target


def test_a_product_is_timed_beside_torch(tmp_path: Path) -> None:
    part, library, arrays = gemm((64, 128, 256), parse_target("native"))
    store(tmp_path, part, library, arrays)
    Description("cpu", "cpu", {}, (part,)).write(tmp_path)
    *_, last = work.work(tmp_path, part.name, 0, 2)
    assert {name: len(found) for name, found in last["times"]["seconds"].items()} == {
        "ours": 2,
        "torch._int_mm": 2,
    }


def test_what_torch_refuses_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("self.size(0) needs to be greater than 16, but got 16\nException raised from ...")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    contenders, note = peers.of(Part("g", "gemm", (), 1, (16, 8, 8)), "cpu")
    assert not contenders
    assert note == "torch._int_mm: self.size(0) needs to be greater than 16, but got 16"


@pytest.mark.parametrize(
    ("network", "shape"), [("mobilenetv2", (2, 1000)), ("resnet50", (2, 1000)), ("bert", (2, 2))]
)
def test_models_run_in_half_precision(network: str, shape: tuple[int, ...]) -> None:
    contenders, reason = peers.of(Part(network, network, (), 1, (2,)), "cpu")
    (one,) = contenders
    assert (one.name, one.note, reason) == ("PyTorch fp16", "not compiled", "")
    result = one.start()
    assert result.dtype == torch.float16 and tuple(result.shape) == shape
    assert bool(torch.isfinite(result).all())


def test_a_part_without_a_peer_has_none() -> None:
    assert peers.of(Part("digits", "models", (), 1), "cpu") == ([], "")


def test_fused_attention_is_attention() -> None:
    torch.manual_seed(0)
    plain, fused = Attention(24, 3), FusedAttention(24, 3)
    fused.load_state_dict(plain.state_dict())
    x, mask = torch.randn(2, 5, 24), torch.randn(2, 1, 1, 5)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x, mask), plain(x, mask))
        torch.testing.assert_close(fused(x), plain(x))
