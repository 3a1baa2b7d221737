"""The example host in Python: TVM's runtime library alone runs a package."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.cuda import needs_no_driver
from tests.support.tiny import integer_module
from tvm_qat.compiler import compile

HOST = Path(__file__).resolve().parents[2] / "examples" / "python" / "run_package.py"

_RUN = f"""
import runpy, sys
sys.modules["torch"] = None  # tvm_ffi would import it wherever it is installed
sys.argv = ["run_package.py", "model.tar", "in.npz", "out.npz"]
runpy.run_path({str(HOST)!r}, run_name="__main__")
assert "tvm" not in sys.modules and "tvm_qat" not in sys.modules
assert "libtvm_compiler" not in open("/proc/self/maps").read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is loaded as Linux tells it")
def test_it_runs_a_package_without_the_compiler(tmp_path: Path) -> None:
    package = compile(integer_module(batch=2), "native")
    package.save(tmp_path / "model.tar")
    data = package.random_inputs()
    np.savez(tmp_path / "in.npz", **data)
    done = subprocess.run(
        [sys.executable, "-c", _RUN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_array_equal(outputs["result"], package.run(data)["result"])


def _run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HOST), "model.tar", "in.npz", "out.npz"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@needs_no_driver
def test_without_a_driver_one_line_says_so(tmp_path: Path) -> None:
    compile(integer_module(batch=2), "native").save(tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        data = {name: file.read() for name, file in members.items() if file is not None}
    meta = json.loads(data["meta.json"]) | {"target": {"kind": "cuda", "arch": "sm_90"}}
    with tarfile.open(tmp_path / "model.tar", "w") as tar:
        for name, content in (data | {"meta.json": json.dumps(meta).encode()}).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    np.savez(tmp_path / "in.npz")
    done = _run(tmp_path)
    assert done.returncode == 5
    assert done.stderr.startswith("run_package: this machine has no NVIDIA driver: libcuda.so.1")
    assert done.stderr.count("\n") == 1
