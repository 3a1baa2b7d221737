"""The three forms of a package, by what the compiling machine has at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import float_module, integer_module
from tvm_qat.compiler import compile
from tvm_qat.errors import InputError, MissingDependencyError, PackageError
from tvm_qat.ir import IRModule
from tvm_qat.package import Package, container, link, load, meta
from tvm_qat.package.quiet import quiet

MODULES = {"of unknown batch": float_module, "of known shapes": lambda: integer_module(batch=2)}
AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}


@pytest.fixture(scope="module", params=MODULES)
def made(request: pytest.FixtureRequest) -> Package:
    return compile(MODULES[request.param]())


@pytest.fixture
def no_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)


def test_with_a_linker_a_package_holds_a_library(saved: Path):
    assert set(container.from_file(saved)) == {"meta.json", "layers.json", "mod.so"}


@pytest.mark.usefixtures("no_linker")
@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_without_a_linker_a_package_holds_ir_and_runs_all_the_same(
    module: Callable[[], IRModule], tmp_path: Path
):
    fresh = compile(module())
    fresh.save(tmp_path / "ir.tar")
    wanted = {"meta.json", "layers.json", "mod.ll", "mod.vm", "constants.bin"}
    assert set(container.from_file(tmp_path / "ir.tar")) == wanted
    data = fresh.random_inputs(unknown=3)
    again = load(tmp_path / "ir.tar").run(data)
    np.testing.assert_array_equal(fresh.run(data)["result"], again["result"])


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_without_a_cross_compiler_foreign_code_stays_objects(module: Callable[[], IRModule], tmp_path: Path):
    foreign = compile(module(), AARCH64)
    foreign.save(tmp_path / "arm.tar")
    wanted = {"meta.json", "layers.json", "lib0.o", "devc.o", "constants.o"}
    assert set(container.from_file(tmp_path / "arm.tar")) == wanted
    with pytest.raises(PackageError, match="was compiled for aarch64-linux-gnu"):
        load(tmp_path / "arm.tar")
    with pytest.raises(PackageError, match="was compiled for aarch64-linux-gnu"):
        foreign.run(foreign.random_inputs())


def objects_of(package: Package, tmp_path: Path) -> Package:
    """The package as it would come from another machine: not linked."""
    objects = link._objects(package._code, tmp_path)
    members = {name: (tmp_path / name).read_bytes() for name in objects}
    members["layers.json"] = package._details.to_bytes()
    checked = {"meta.json": meta.to_bytes(package.meta, members), **members}
    (tmp_path / "objects.tar").write_bytes(container.to_tar(checked))
    return load(tmp_path / "objects.tar")


def test_objects_are_linked_where_they_are_loaded(made: Package, tmp_path: Path):
    data = made.random_inputs(unknown=2)
    linked_here = objects_of(made, tmp_path).run(data)
    np.testing.assert_array_equal(made.run(data)["result"], linked_here["result"])


def test_a_package_can_be_saved_after_it_ran(tmp_path: Path):
    package = compile(integer_module(batch=2))
    data = package.random_inputs()
    before = package.run(data)["result"]
    package.save(tmp_path / "a.tar")
    np.testing.assert_array_equal(load(tmp_path / "a.tar").run(data)["result"], before)


@pytest.mark.parametrize("name", ["with space", 'with "quotes" and \\', "Umlaut ä"])
def test_constants_are_found_in_a_folder_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    package = compile(integer_module(batch=2))
    data = package.random_inputs()
    package.save(tmp_path / "a.tar")
    np.testing.assert_array_equal(load(tmp_path / "a.tar").run(data)["result"], package.run(data)["result"])


@pytest.mark.usefixtures("no_linker")
def test_objects_without_a_linker_name_what_to_install(package: Package, tmp_path: Path):
    unlinked = objects_of(package, tmp_path)
    with pytest.raises(MissingDependencyError, match="apt-get install gcc"):
        unlinked.run(unlinked.random_inputs())


def test_a_cross_compiler_that_is_missing_or_fails_is_refused(tmp_path: Path):
    with pytest.raises(MissingDependencyError, match=r"no-such-compiler: was not found.*gcc-aarch64"):
        compile(float_module(), AARCH64, cross_compiler="no-such-compiler -static")
    for empty in ("", "'"):
        with pytest.raises(InputError, match="is no command"):
            compile(float_module(), AARCH64, cross_compiler=empty)
    with pytest.raises(InputError, match="cannot link"):
        compile(float_module(), AARCH64, cross_compiler="false").save(tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_tvms_fixed_warnings_are_kept_off_stderr_and_nothing_else(capfd: pytest.CaptureFixture[str]):
    with quiet():
        os.write(2, b"Warning: Scope Saving: x\nsomething else\n")
    assert capfd.readouterr().err == "something else\n"
