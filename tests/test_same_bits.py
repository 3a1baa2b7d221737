"""One source, any x86-64 machine, any number of threads: the same bytes come out."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import tvm_qat
from tests.support.corpus import CORPUS, needs_corpus
from tvm_qat.ir import tvm
from tvm_qat.package.target import parse_target

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tvm_qat" / "data" / "demo"
CPUS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "cascadelake")

_HASH_ALL = """
import hashlib, sys
import tvm_qat
for path in sys.argv[1:]:
    package = tvm_qat.load(path)
    digest = hashlib.sha256()
    for seed in range(3):
        for name, array in sorted(package.run(package.random_inputs(seed, unknown=3)).items()):
            digest.update(name.encode() + array.tobytes())
    print(digest.hexdigest())
"""


def _runnable(cpus: Sequence[str]) -> list[object]:
    """Those of the CPU levels that this machine can run, and the machine itself."""
    from tvm_qat.errors import InputError
    from tvm_qat.package.target import check_runnable, platform_of

    found: list[object] = []
    for cpu in cpus:
        target = {"kind": "llvm", "mtriple": tvm.target.codegen.llvm_get_system_triple(), "mcpu": cpu}
        try:
            check_runnable(platform_of(parse_target(target)), "this machine")
        except InputError:
            continue
        found.append(target)
    return [*found, "native"]


def _digests(packages: Sequence[Path], threads: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _HASH_ALL, *map(str, packages)],
        env={**os.environ, "TVM_NUM_THREADS": str(threads)}, cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def _assert_same_bits(model: Path, folder: Path, cpus: Sequence[str] = CPUS) -> None:
    """Compiled once for each level; a process reads the number of threads when it starts."""
    packages = []
    for i, target in enumerate(_runnable(cpus)):
        packages.append(folder / f"{i}.tar")
        tvm_qat.compile(model, target).save(packages[-1])
    single, double = _digests(packages, 1), _digests(packages, 2)
    assert len(single) == len(double) == len(packages) >= 2
    assert set(single) == set(double) == {single[0]}
    assert single[0] != hashlib.sha256().hexdigest()


def test_a_model_gives_the_same_bytes_on_the_plainest_cpu_and_this_one(tmp_path: Path) -> None:
    _assert_same_bits(DEMO / "digits_mlp.onnx", tmp_path, CPUS[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_own_models_give_the_same_bytes_on_every_cpu_level(name: str, tmp_path: Path) -> None:
    _assert_same_bits(DEMO / f"{name}.onnx", tmp_path)


@pytest.mark.slow
@needs_corpus
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["kws_ref_model", "resnet"])
def test_real_models_give_the_same_bytes_on_every_cpu_level(name: str, tmp_path: Path) -> None:
    _assert_same_bits(CORPUS / "tiny_v13_kaijiang" / f"{name}.onnx", tmp_path)
