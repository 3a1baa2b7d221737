from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import MODEL, Call
from tests.support.graphs import calls_of
from tests.verification.network import planted, with_operand
from tvm_qat import pipeline
from tvm_qat.ir import IRModule, op_name, source_of

REQUANTIZE = "qnn.requantize"
FIGURES = {
    "elements", "differing", "max_steps", "mean_steps", "max_relative", "mean_relative", "tie_share",
    "cosine", "sqnr_db",
}  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What `verify` writes of the smaller demo model."""
    from tvm_qat.cli import main

    path = tmp_path_factory.mktemp("verify") / "out.json"
    assert main(["verify", MODEL, "--samples", "2", "--target", "llvm", "--json", "-o", str(path)]) == 0
    return json.loads(path.read_text())


def test_json_has_the_promised_form(document: dict):
    summary = document["summary"]
    assert summary["passed"] is True and summary["failures"] == []
    assert summary["compiled_vs_reference"]["differing"] == 0
    assert summary["compiled_vs_reference"]["elements"] > 0
    assert summary["fused_vs_reference"] == {"differing": 0}
    assert summary["reference_vs_simulation"]["max_steps"] <= 1
    assert summary["reference_vs_simulation"]["tie_share"] == 1.0
    assert [(stage["name"], stage["against"]) for stage in document["stages"]] == [
        ("canonical", "simulation"), ("reference", "simulation"), ("compiled", "reference"),
    ]  # fmt: skip
    for stage in document["stages"]:
        assert stage["layers"]
        for layer in stage["layers"]:
            assert set(layer) == {"name", "op", "inherited", "quantizer", "seconds"} | FIGURES
            assert (set(layer["inherited"]) == FIGURES) if stage["name"] == "reference" else True


def test_layers_bear_the_names_of_the_models_nodes(document: dict):
    names = [layer["name"] for layer in document["stages"][1]["layers"]]
    assert names == [
        "image/quantize", "flatten", "fc1/add", "fc2/add", "fc3/add", "fc3/dequantize", "softmax",
    ]  # fmt: skip


def test_every_quantizer_has_a_histogram_of_all_its_values(document: dict):
    kinds = {quantizer["name"]: quantizer["kind"] for quantizer in document["quantizers"]}
    assert kinds["fc1/quantize"] == "activation" and kinds["fc1/weight/dequantize"] == "weight"
    for quantizer in document["quantizers"]:
        histogram = quantizer["histogram"]
        counted = sum(histogram["counts"]) + histogram["below"] + histogram["above"]
        assert counted == quantizer["elements"] > 0
        assert 0 <= quantizer["used_share"] <= 1


def test_the_table_names_the_layers_and_the_stages(call: Call):
    shown = call("verify", MODEL, "--samples", "1", "--target", "llvm")
    assert shown.code == 0
    for text in ("fc1/add", "softmax", "reference - simulation", "compiled - reference", "--seed 0"):
        assert text in shown.out


def test_limits_decide_the_exit_code(call: Call, tmp_path: Path):
    path = tmp_path / "data.npz"
    np.savez(path, image=np.random.default_rng(1).normal(size=(2, 1, 16, 16)).astype(np.float32))
    labels = tmp_path / "labels.npz"
    np.savez(labels, labels=np.array([3, 4]))
    common = ("verify", MODEL, "-i", path, "--target", "llvm")
    passed = call(*common, "--labels", labels, "--max-steps", 1, "--min-agreement", 1, "--json")
    assert passed.code == 0
    accuracy = json.loads(passed.out)["summary"]["accuracy"]
    assert set(accuracy) == {"simulation", "reference", "compiled"}
    assert 0 <= accuracy["compiled"]["top1"] <= accuracy["compiled"]["top5"] <= 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-i", "missing.npz"), 4),
        (("--max-steps", "-1"), 2),
        (("--min-agreement", "2"), 2),
        (("--suggest", "few"), 2),
        (("--rounding", "sideways"), 4),
    ],
)
def test_bad_options_are_refused(call: Call, arguments: tuple[str, ...], code: int):
    assert call("verify", MODEL, *arguments).code == code


def test_data_that_does_not_fit_is_refused_in_one_line(call: Call, tmp_path: Path, module: Path):
    path = tmp_path / "data.npz"
    np.savez(path, image=np.zeros((2, 1, 8, 16), np.float32))
    refused = call("verify", MODEL, "-i", path)
    assert refused.code == 4 and refused.refused_in_one_line and "image" in refused.err
    of_package = call("verify", module)
    assert of_package.code == 4 and of_package.refused_in_one_line


def test_nothing_is_written_where_kernels_cannot_be_timed(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As when the process that times them is killed: the exit status of that process is what is known."""
    monkeypatch.setattr("tvm_qat.bench.layers.sys.executable", "/bin/false")
    report, figures = tmp_path / "out.html", tmp_path / "out.json"
    common = ("verify", MODEL, "--samples", "1", "--target", "llvm")
    refused = call(*common, "--report", report, "-o", figures)
    assert refused.code == 4 and "cannot be measured" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_a_page_with_times_and_the_models_nodes(call: Call, tmp_path: Path):
    path = tmp_path / "out.html"
    shown = call("verify", MODEL, "--samples", "1", "--target", "llvm", "--report", path)
    assert shown.code == 0 and list(tmp_path.iterdir()) == [path]
    data = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert data is not None
    page = json.loads(data[1])
    assert page["file"] == "digits_mlp.onnx" and page["passed"] is True
    assert {"fc1", "fc2", "fc3"} <= {kernel["name"] for kernel in page["kernels"]}
    assert all(kernel["seconds"] > 0 for kernel in page["kernels"])


def test_a_report_that_cannot_be_written_is_refused_first(call: Call, tmp_path: Path):
    refused = call("verify", MODEL, "--report", tmp_path / "missing" / "out.html")
    assert refused.code == 4 and refused.refused_in_one_line


@pytest.mark.parametrize("limit", [("--max-steps", "1"), ("--min-agreement", "1")])
def test_a_missed_limit_ends_with_exit_code_1(
    call: Call, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, str]
):
    fault = with_operand("input_scale", lambda scale: scale * 40)
    cancel = pipeline.PASSES["cancel_requantize_pairs"]
    faulty = ("fc3/add", "qnn.requantize", fault)
    monkeypatch.setitem(pipeline.PASSES, "cancel_requantize_pairs", lambda mod: planted(cancel(mod), *faulty))
    failed = call("verify", MODEL, "--samples", "4", "--target", "llvm", *limit, "--json")
    summary = json.loads(failed.out)["summary"]
    assert failed.code == 1 and not summary["passed"] and len(summary["failures"]) == 1
    assert summary["reference_vs_simulation"]["first_layer"] == "fc3/add"
    assert summary["reference_vs_simulation"]["tie_share"] < 1
    assert summary["compiled_vs_reference"]["differing"] == 0


def test_a_suggestion_is_a_flag_that_helps(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The second sum is requantized wrongly: kept in float, the relu behind it reads the sum itself."""
    fault = with_operand("input_scale", lambda scale: scale * 3)
    cancel = pipeline.PASSES["cancel_requantize_pairs"]

    def faulty(mod: IRModule) -> IRModule:
        free = all(source_of(call) != "fc2/add" for call in calls_of(mod) if op_name(call) == REQUANTIZE)
        return cancel(mod) if free else planted(cancel(mod), "fc2/add", REQUANTIZE, fault)

    monkeypatch.setitem(pipeline.PASSES, "cancel_requantize_pairs", faulty)
    path = tmp_path / "out.json"
    common = ("verify", MODEL, "--samples", "2", "--target", "llvm", "--suggest", "0.5")
    shown = call(*common, "-o", path)
    found = json.loads(path.read_text())["suggestion"]
    assert found["layers"] == ["fc2/add"] and found["keep_float"] == ["fc2/relu"]
    assert found["before"] > 0.5 >= found["after"] and found["reached"] and found["fewest"]
    assert found["trials"][0] == {"keep_float": [], "max_steps": found["before"]}
    assert {"keep_float": ["fc2/relu"], "max_steps": found["after"]} in found["trials"]
    assert "suggestion                 1 layer, " in shown.out and "--keep-float fc2/relu\n" in shown.out
    helped = call(*common, "--keep-float", "fc2/relu")
    assert helped.code == 0 and "none is needed" in helped.out


@pytest.mark.parametrize(
    "flags", [("-o", "model.onnx"), ("--report", "model.onnx"), ("-o", "a", "--report", "./a")]
)
def test_no_file_is_written_over_another_of_the_call(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(Path(MODEL).read_bytes())
    refused = call("verify", "model.onnx", *flags)
    assert refused.code == 4 and refused.refused_in_one_line
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert Path("model.onnx").read_bytes() == Path(MODEL).read_bytes()
