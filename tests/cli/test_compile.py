from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import MODEL, Call
from tvm_qat.package import load


def test_compile_writes_a_package_and_says_what_it_holds(call: Call, tmp_path: Path):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar")
    assert result.code == 0
    assert "of the multiply-accumulates run on integers" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["m.tar"]


@pytest.mark.parametrize(("flags", "plain"), [([], True), (["--target", "llvm -mcpu=cascadelake"], False)])
def test_a_target_without_an_instruction_for_products_is_named_with_the_remedy(
    flags: list[str], plain: bool, call: Call, tmp_path: Path
):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar", "--json", *flags)
    assert ("target llvm: products run in plain loops" in result.err) == plain
    assert ("--target native" in result.err) == plain
    shown = call("inspect", tmp_path / "m.tar").out
    assert ("plain loops" in shown) == plain and ("products by                avx512vnni" in shown) != plain


def test_compile_json_is_one_document(call: Call, tmp_path: Path):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar", "--json", "--target", "native")
    document = json.loads(result.out)
    assert document["package"] == str(tmp_path / "m.tar")
    assert document["bytes"] == (tmp_path / "m.tar").stat().st_size
    assert document["target"]["kind"] == "llvm"
    assert document["inputs"][0]["dtype"] == "float32"
    assert 0 <= document["totals"]["int8_mac_share"] <= 1
    assert {"fold_into_qnn", "[machine code]"} <= set(document["seconds"])


def test_pass_times_are_printed(call: Call, tmp_path: Path):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar", "--print-pass-times")
    assert "fold_into_qnn" in result.out and "ms" in result.out


def test_code_is_dumped_beside_the_package(call: Call, tmp_path: Path):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar", "--dump-code", "relax,tir,ll,asm")
    assert result.code == 0
    texts = {form: (tmp_path / f"m.tar.{form}").read_text() for form in ("relax", "tir", "ll", "asm")}
    assert "qnn." in texts["relax"]
    assert "prim_func" in texts["tir"]
    assert "define" in texts["ll"]
    assert ".text" in texts["asm"]


def test_input_shapes_reach_the_package(call: Call, tmp_path: Path):
    shape = "image:[3,1,16,16]"
    assert call("compile", MODEL, "-o", tmp_path / "m.tar", "--input-shapes", shape).code == 0
    assert load(tmp_path / "m.tar").inputs[0].shape == (3, 1, 16, 16)


def test_a_disabled_pass_changes_no_bit(call: Call, tmp_path: Path):
    for name, flags in {"a": [], "b": ["--disabled-pass", "cancel_requantize_pairs,FuseOps"]}.items():
        assert call("compile", MODEL, "-o", tmp_path / f"{name}.tar", *flags).code == 0
    packages = [load(tmp_path / f"{name}.tar") for name in "ab"]
    data = packages[0].random_inputs(unknown=4)
    for one, other in zip(*(package.run(data).values() for package in packages), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--target", "nonsense"], "nonsense"),
        (["--target", "llvm -mcpu=pentium99"], "pentium99"),
        (["--target", '{"kind": '], "target"),
        (["--rounding", "nonsense"], "rounding 'nonsense'"),
        (["--disabled-pass", "nonsense"], "no pass is called nonsense"),
        (["--disabled-pass", "extract_qparams"], "cannot be disabled"),
        (["--pass-config", "nonsense=1"], "nonsense"),
        (["--dump-code", "nonsense"], "dump 'nonsense'"),
        (["--model-format", "nonsense"], "nonsense"),
        (["--input-shapes", "nonsense:[1]"], "nonsense"),
    ],
)
def test_a_wrong_option_is_refused(call: Call, tmp_path: Path, flags: list[str], reason: str):
    result = call("compile", MODEL, "-o", tmp_path / "m.tar", *flags)
    assert result.code == 4 and result.refused_in_one_line and reason in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--input-shapes", "x[1]"], ["--pass-config", "a"], ["--nonsense"], ["-o"]]
)
def test_wrong_usage_is_code_2(call: Call, flags: list[str]):
    assert call("compile", MODEL, "-o", "x.tar", *flags).code == 2


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x07\x12\x00", Path(MODEL).read_bytes()[:1000]])
def test_what_is_no_model_is_refused(call: Call, tmp_path: Path, content: bytes):
    model = tmp_path / "bad.onnx"
    model.write_bytes(content)
    result = call("compile", model, "-o", tmp_path / "m.tar")
    assert result.code == 4 and result.refused_in_one_line and "bad.onnx" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_an_impossible_output_is_refused_before_any_work(call: Call, tmp_path: Path):
    for place in (tmp_path, tmp_path / "missing" / "m.tar"):
        result = call("compile", MODEL, "-o", place)
        assert result.code == 4 and result.refused_in_one_line


def test_a_package_remembers_what_was_kept_in_float(call: Call, tmp_path: Path):
    assert call("compile", MODEL, "-o", tmp_path / "m.tar", "--keep-float", "fc1", "fc2").code == 0
    kept = {row["name"] for row in load(tmp_path / "m.tar").layers if row["code"] == "by-request"}
    assert kept == {"fc1", "fc2"}
