"""The table, from figures that were made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from on_gpu.check import Outcome
from on_gpu.parts import Case, Part
from on_gpu.table import document, markdown, peak_of

ABOUT = {"machine": "A GPU", "arch": "sm_90", "versions": {"TVM": "0.27", "torch": ""}}


def _outcome(
    name: str, group: str, macs: int, seconds: dict[str, list[float]] | None, *notes: str
) -> Outcome:
    part = Part(name, group, (Case(name, "main", (), ()),), macs)
    times: dict[str, Any] | None = {"seconds": seconds, "notes": list(notes)} if seconds else None
    return Outcome(part, right=1, times=times)


GEMM = _outcome(
    "gemm-1", "gemm", 10**12, {"ours": [0.020, 0.022, 0.021], "torch._int_mm": [0.010, 0.012, 0.011]}
)
MODEL = _outcome(
    "net-b1", "net", 10**9, {"ours": [1e-3, 2e-3, 3e-3], "PyTorch fp16": [2e-3, 3e-3, 9e-3]}, "compiled", ""
)
ALONE = _outcome("gemm-2", "gemm", 10**9, {"ours": [1e-3]}, "torch is not installed")
KERNEL = _outcome("dense", "kernels", 0, None)


def test_the_peak_is_the_best_product() -> None:
    peak = peak_of([KERNEL, MODEL, ALONE, GEMM])
    assert peak is not None
    assert peak.tops == pytest.approx(2 / 0.011) and peak.by == "torch._int_mm, gemm-1"


def test_it_may_be_ours() -> None:
    ahead = replace(ALONE, times={"seconds": {"ours": [1e-3], "torch._int_mm": [2e-3]}, "notes": []})
    peak = peak_of([ahead, MODEL])
    assert peak is not None
    assert peak.tops == pytest.approx(2.0) and peak.by == "ours, gemm-2"
    assert peak_of([MODEL, KERNEL]) is None


def test_ratios_are_formed_within_rounds() -> None:
    (row,) = document([MODEL], ABOUT)["times"]
    assert row["ratio"]["PyTorch fp16"] == pytest.approx([1.75, 2.0, 2.5])
    assert row["seconds"]["ours"] == pytest.approx([1.5e-3, 2e-3, 2.5e-3])
    assert row["tops"] == pytest.approx(1.0) and row["share_of_peak"] is None


def test_the_table_can_be_read() -> None:
    lines = markdown(document([KERNEL, GEMM, MODEL, ALONE], ABOUT)).splitlines()
    assert lines[0] == "**A GPU** (TVM 0.27): 4 of 4 cases have the right bits."
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert rows[2] == (
        "| gemm-1 | 21 (20.5-21.5) | torch._int_mm | 11 (10.5-11.5) | 0.524 (0.512-0.535) | 95.2 | 52.4 % |"
    )
    assert rows[4] == "| gemm-2 | 1 (1-1) |  |  |  | 2 | 1.1 % |"
    assert "181.8 TOPS (torch._int_mm, gemm-1)" in "\n".join(lines)
    assert lines[-2:] == ["- net-b1: compiled", "- gemm-2: torch is not installed"]


def test_figures_of_what_is_wrong_say_so() -> None:
    wrong = replace(ALONE, faults=["gemm-2: 1 of 4 elements differ"], right=0)
    text = markdown(document([wrong], ABOUT))
    assert "| gemm-2 (wrong bits) | 1 (1-1) |" in text and "0 of 1 cases have the right bits" in text


def test_without_times_there_is_no_table() -> None:
    assert markdown(document([KERNEL], ABOUT)) == "**A GPU** (TVM 0.27): 1 of 1 cases have the right bits.\n"
