"""The example host in C++, built with this machine's compiler: TVM's runtime alone runs a package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.support.steps import module_of_steps
from tests.support.tiny import integer_module
from tvm_qat.compiler import compile
from tvm_qat.ir import relax

HOST = Path(__file__).resolve().parents[2] / "examples" / "cpp" / "run_package.cc"

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ on Linux"
)


def _folder(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tvm, ffi = _folder("tvm"), _folder("tvm_ffi")
    program = tmp_path_factory.mktemp("host") / "run_package"
    libraries = [
        word
        for folder, name in (
            (tvm / "lib", "tvm_runtime_extra"),
            (tvm / "lib", "tvm_runtime"),
            (ffi / "lib", "tvm_ffi"),
        )
        for word in (f"-L{folder}", f"-Wl,-rpath,{folder}", f"-l{name}")
    ]
    subprocess.run(
        ["g++", "-std=c++17", str(HOST), "-I", str(ffi / "include"), "-o", str(program),
         "-Wl,--no-as-needed", *libraries],
        check=True,
    )  # fmt: skip
    return program


def run(host: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    return subprocess.run(
        [str(host), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_runs_a_package_and_says_what_is_wrong(host: Path, tmp_path: Path) -> None:
    package = compile(integer_module(batch=2), "native")
    (tmp_path / "mod.so").write_bytes(package.members()["mod.so"])
    data = package.random_inputs()
    for i, array in enumerate(data.values()):
        np.save(tmp_path / f"in{i}.npy", array)
    inputs = [f"in{i}.npy" for i in range(len(data))]
    done = run(host, tmp_path, "mod.so", "main", "first", *inputs, "--", "main", "second", *inputs)
    assert done.returncode == 0, done.stderr
    for prefix in ("first", "second"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{prefix}0.npy"), package.run(data)["result"])

    (tmp_path / "text.npy").write_text("not an array")
    wrong = {
        "text.npy": ("main", ["text.npy"]),
        "missing.npy": ("main", ["missing.npy"]),
        "rain": ("rain", inputs),
    }
    for named, (function, files) in wrong.items():
        failed = run(host, tmp_path, "mod.so", function, "out", *files)
        assert failed.returncode == 1
        assert named in failed.stderr and "\n" not in failed.stderr.strip()


def test_it_runs_a_package_that_sorts(host: Path, tmp_path: Path) -> None:
    package = compile(
        module_of_steps(lambda x: [relax.op.topk(x, k=2, ret_type="indices")], (3, 7)), "native"
    )
    (tmp_path / "mod.so").write_bytes(package.members()["mod.so"])
    data = package.random_inputs()
    np.save(tmp_path / "in.npy", data["x"])
    done = run(host, tmp_path, "mod.so", "main", "out", "in.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out0.npy"), np.argsort(-data["x"], axis=1)[:, :2])
