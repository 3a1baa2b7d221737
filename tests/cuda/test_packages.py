"""Packages for a GPU: what is in them, what ptxas makes of it, and what is refused in one line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvm_qat
from tests.kernels.harness import module_of
from tests.kernels.linear_cases import conv_case
from tests.support.cuda import OLDER, TARGET, needs_nvcc
from tests.support.open_sizes import FUSED, open_cases
from tvm_qat import errors, kernels
from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, relax, with_source
from tvm_qat.kernels.cuda import products, tiles
from tvm_qat.package import build, cuda
from tvm_qat.package.target import parse_target

DEMO = Path(__file__).resolve().parents[2] / "tvm_qat/data/demo"
_QUIET = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@pytest.fixture(scope="module")
def package() -> tvm_qat.Package:
    return tvm_qat.compile(DEMO / "digits_cnn.onnx", TARGET, dump=["ptx"])


def _report(ptx: str, folder: Path) -> str:
    """What ptxas says of each kernel."""
    (folder / "k.ptx").write_text(ptx)
    (arch,) = re.findall(r"^\.target (\w+)$", ptx, re.MULTILINE)
    command = ["ptxas", "-v", f"-arch={arch}", "-o", "k.cubin", "k.ptx"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr


def _ptxas(ptx: str, folder: Path) -> list[tuple[str, ...]]:
    """Stack, spilled stores and loads of each kernel, in bytes."""
    return _QUIET.findall(_report(ptx, folder))


def _bodies(ptx: str) -> dict[str, str]:
    parts = re.split(r"\.entry (\w+)", ptx)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@needs_nvcc
def test_products_are_on_tensor_cores_and_depthwise_on_dp4a(package: tvm_qat.Package) -> None:
    bodies = _bodies(package.dumps["ptx"])
    instructions = {
        "mma_products": "mma.sync.aligned.m16n8k32.row.col.s32.",
        "dp4a_depthwise": "dp4a.",
        "dp4a_few_rows": "dp4a.",
    }
    shown = [row for row in package.layers if row["kernel"] in instructions]
    assert {row["kernel"] for row in shown} == set(instructions)
    for row in shown:
        (function,) = row["functions"]
        assert instructions[row["kernel"]] in bodies[f"{function}_kernel"], row["name"]
    assert all(row["kernel"] in instructions for row in package.layers if row["macs"])
    assert package.totals["instruction"] == "mma.sync"


@needs_nvcc
def test_nothing_is_spilled(package: tvm_qat.Package, tmp_path: Path) -> None:
    found = _ptxas(package.dumps["ptx"], tmp_path)
    assert len(found) == package.dumps["ptx"].count(".entry")
    assert set(found) == {("0", "0", "0")}


@needs_nvcc
@pytest.mark.parametrize("name", ["WIDE", "TALL", "DOT_WIDE", "DOT_SMALL"])
def test_tiles_stay_in_registers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_dots = name.startswith("DOT")
    monkeypatch.setattr(
        products, "choose_dot_tile" if by_dots else "choose_tile", lambda *_: getattr(tiles, name)
    )
    cases = [conv_case("3x3", np.random.default_rng(0), size=(20, 20), inner=64, outer=128)]
    ptx = _ptx_of(module_of(cases), OLDER if by_dots else TARGET)
    assert ("dp4a.u32.s32" in ptx, "mma.sync" in ptx, "cp.async" in ptx) == (
        by_dots,
        not by_dots,
        not by_dots,
    )
    assert ".local" not in ptx
    assert _ptxas(ptx, tmp_path) == [("0", "0", "0")]
    if name == "DOT_WIDE":  # two blocks of 256 threads share a multiprocessor's 65536 registers
        (registers,) = re.findall(r"Used (\d+) registers", _report(ptx, tmp_path))
        assert int(registers) <= 128


@needs_nvcc
def test_before_sm_80_all_products_are_on_dp4a(tmp_path: Path) -> None:
    package = tvm_qat.compile(DEMO / "digits_cnn.onnx", OLDER, dump=["ptx"])
    bodies = _bodies(package.dumps["ptx"])
    assert package.totals["instruction"] == "dp4a"
    for row in package.layers:
        if row["macs"]:
            assert row["kernel"].startswith("dp4a_"), row["name"]
            assert "dp4a." in bodies[f"{row['functions'][0]}_kernel"], row["name"]
    assert ".target sm_75" in package.dumps["ptx"] and "mma.sync" not in package.dumps["ptx"]
    assert set(_ptxas(package.dumps["ptx"], tmp_path)) == {("0", "0", "0")}


@needs_nvcc
@pytest.mark.parametrize(("target", "product"), [(TARGET, "mma.sync"), (OLDER, "dp4a.u32.s32")])
def test_shares_of_the_depth_stay_in_registers(target: Any, product: str, tmp_path: Path) -> None:
    cases = [conv_case("late", np.random.default_rng(0), size=(7, 7), inner=512, outer=512)]
    ptx = _ptx_of(module_of(cases), target)
    products_, sums = _bodies(ptx).values()
    assert product in products_ and re.search(r"st\.global\.v[24]\.u32", products_)
    assert "ld.global.nc.v4.u32" in sums
    assert ".local" not in ptx
    assert _ptxas(ptx, tmp_path) == [("0", "0", "0")] * 2


@needs_nvcc
@pytest.mark.parametrize("target", [TARGET, OLDER])
def test_rows_that_begin_anywhere_are_read_by_words(target: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"kernel": (1, 1), "padding": (0,) * 4, "size": (20, 20)}
    cases = [conv_case("odd", np.random.default_rng(0), inner=197, outer=128, **options)]
    ptx = _ptx_of(module_of(cases), target)
    assert re.search(r"ld\.global(\.nc)?\.[us]8", ptx) is None and "prmt.b32" in ptx
    assert _ptxas(ptx, tmp_path) == [("0", "0", "0")]


@needs_nvcc
@pytest.mark.parametrize("rows", [1, 8])
def test_few_rows_read_weights_in_pieces_of_16_bytes(rows: int, tmp_path: Path) -> None:
    """Those of one turn before the first of their products, whether sizes are whole or not."""
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"kernel": (1, 1), "padding": (0,) * 4, "size": (1, 1), "batch": rows}
    cases = [conv_case(f"{k}", rng, inner=k, outer=1000, **options) for k in (2048, 1021)]
    ptx = _ptx_of(module_of(cases), TARGET)
    for body in _bodies(ptx).values():
        first = body[: body.index("dp4a.")]
        assert first.count("ld.global.nc.v4.u32") >= 2 and "shfl.sync.bfly" in body
    assert ".local" not in ptx and "mma.sync" not in ptx
    assert _ptxas(ptx, tmp_path) == [("0", "0", "0")] * 2


def _ptx_of(mod: IRModule, target: Any) -> str:
    parsed = parse_target(target)
    lowered = kernels.finish(parsed)(kernels.lower(mod, parsed))
    return build.code_of(build.executable_of(lowered, parsed), "ptx")


@needs_nvcc
def test_the_library_holds_ptx_that_the_runtime_takes_as_it_is(package: tvm_qat.Package) -> None:
    library = package.members()["mod.so"]
    assert b".target sm_80" in library
    assert b"__global__" not in library
    label = len(b"ptxt").to_bytes(8, "little") + b"ptxt"
    assert library.count(label) == 1


@needs_nvcc
def test_packages_are_the_same_every_time(package: tvm_qat.Package) -> None:
    again = tvm_qat.compile(DEMO / "digits_cnn.onnx", TARGET)
    assert again.to_bytes() == package.to_bytes()


@needs_nvcc
def test_without_a_gpu_running_says_so(package: tvm_qat.Package, tmp_path: Path) -> None:
    package.save(tmp_path / "digits.tar")
    loaded = tvm_qat.load(tmp_path / "digits.tar")
    assert loaded.meta.target["arch"] == "sm_80"
    with pytest.raises(errors.MissingDependencyError, match="no driver or GPU on this machine"):
        loaded.run(loaded.random_inputs())
    with pytest.raises(errors.UnsupportedError, match="cannot be timed one by one"):
        loaded.profile()


@pytest.mark.parametrize("target", ["cuda", {"kind": "cuda", "arch": "sm_60"}])
def test_architectures_without_dp4a_are_refused(target: Any) -> None:
    with pytest.raises(errors.UnsupportedError, match="need an arch of sm_61 or later"):
        parse_target(target)


@pytest.mark.parametrize(
    ("listed", "arch", "reason"),
    [
        ("compute_75 compute_90", "sm_61", "compiles for sm_75 to sm_90; set NVCC to nvcc of an older"),
        ("compute_75 compute_90", "sm_100", "compiles for sm_75 to sm_90; set NVCC to nvcc of another"),
        ("compute_50 compute_61 compute_90", "sm_61", None),
        ("compute_50 compute_90", "sm_90a", None),
        ("", "sm_61", None),
    ],
)
def test_an_arch_that_nvcc_does_not_know_is_refused_at_once(
    listed: str, arch: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before CUDA 11 nvcc had no list: what it does not know is found when it compiles."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\nprintf '%s\\n' {listed}\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("NVCC", str(nvcc))
    target = parse_target({"kind": "cuda", "arch": arch})
    if reason is None:
        cuda.check_nvcc(target)
        return
    with pytest.raises(errors.MissingDependencyError, match=reason):
        cuda.check_nvcc(target)


def test_without_nvcc_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    with pytest.raises(errors.MissingDependencyError, match="nvcc was not found"):
        tvm_qat.compile("no such model", TARGET)


@needs_nvcc
def test_nothing_is_spilled_where_sizes_are_unknown(tmp_path: Path) -> None:
    cases = [one for name in ("qnn.conv2d", "qnn.dense", FUSED) for one in open_cases(name)]
    ptx = _ptx_of(module_of(cases), TARGET)
    found = _ptxas(ptx, tmp_path)
    assert len(found) == ptx.count(".entry") and set(found) == {("0", "0", "0")}
    assert "mma.sync" in ptx and "dp4a" in ptx


def _with_sine() -> IRModule:
    builder, x = BlockBuilder(), Var("x", TensorType((4, 5), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(with_source(relax.op.sin(x), "wave")))
        builder.emit_func_output(result)
    return builder.get()


def test_functions_of_the_c_library_are_refused() -> None:
    target = parse_target(TARGET)
    with pytest.raises(errors.UnsupportedError, match="node wave: sin of float32 has no form with the same"):
        kernels.finish(target)(kernels.lower(_with_sine(), target))


def test_what_tvm_named_right_is_left_alone(tmp_path: Path) -> None:
    """As it does on a machine with a driver: kind, length, then the name of the code."""
    word = (4).to_bytes(8, "little") + b"cuda" + bytes(8)
    data = b"before" + word + (3).to_bytes(8, "little") + b"ptx" + b"after"
    (tmp_path / "devc.o").write_bytes(data)
    cuda.label_as_ptx(tmp_path / "devc.o")
    assert (tmp_path / "devc.o").read_bytes() == data


def test_an_unknown_form_of_modules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "devc.o").write_bytes(b"no module in here")
    with pytest.raises(errors.PackageError, match="in a form that is not known"):
        cuda.label_as_ptx(tmp_path / "devc.o")
