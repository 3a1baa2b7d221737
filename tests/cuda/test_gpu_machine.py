"""Packages on a machine with a GPU, as far as that goes without one: TVM's runtime loads and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvm_qat
from tests.kernels.harness import Case, expected, module_of
from tests.kernels.linear_cases import conv_case
from tests.support.cuda import TARGET, needs_compiler, needs_nvcc
from tests.support.gpu_machine import GpuMachine, emulated_kernels
from tests.support.steps import module_of_steps
from tvm_qat.ir import IRModule, const, relax
from tvm_qat.kernels.cuda import products, tiles
from tvm_qat.package import link

pytestmark = [needs_compiler, needs_nvcc]

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tvm_qat/data/demo/digits_cnn.onnx"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with emulated_kernels(folder):
        tvm_qat.compile(DEMO, TARGET).save(folder / "model.tar")
    return folder


def test_run_gives_the_bits_of_the_cpu(machine: GpuMachine, demo: Path, tmp_path: Path) -> None:
    here = tvm_qat.compile(DEMO, "native")
    inputs = here.random_inputs()
    np.savez(tmp_path / "in.npz", **inputs)
    words = ("-m", "tvm_qat", "run", str(demo / "model.tar"), "-i", "in.npz", "-o", "out.npz")
    done = machine.python(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as made:
        for name, wanted in here.run(inputs).items():
            assert made[name].tobytes() == wanted.tobytes(), name


def test_the_runtime_alone_gives_the_bits_of_the_cpu(machine: GpuMachine, demo: Path, tmp_path: Path) -> None:
    """The example host in Python, without TVM's compiler."""
    here = tvm_qat.compile(DEMO, "native")
    inputs = here.random_inputs(seed=1)
    np.savez(tmp_path / "in.npz", **inputs)
    script = f"""
import runpy, sys
sys.modules["torch"] = None
sys.argv = ["run_package.py", {str(demo / "model.tar")!r}, "in.npz", "out.npz"]
runpy.run_path({str(ROOT / "examples/python/run_package.py")!r}, run_name="__main__")
assert "tvm" not in sys.modules and "libtvm_compiler" not in open("/proc/self/maps").read()
"""
    done = machine.python("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as made:
        assert made["logits"].tobytes() == here.run(inputs)["logits"].tobytes()


@pytest.mark.slow
def test_a_machine_with_a_gpu_compiles_and_verifies(machine: GpuMachine, tmp_path: Path) -> None:
    """Where TVM finds a driver it goes other ways than on a machine without one."""
    script = f"""
from pathlib import Path
import tvm_qat
from tests.support.gpu_machine import emulated_kernels

target = {TARGET!r}
here = tvm_qat.compile({str(DEMO)!r}, "native")
inputs = here.random_inputs()
wanted = here.run(inputs)["logits"].tobytes()
with emulated_kernels(Path()):
    package = tvm_qat.compile({str(DEMO)!r}, target)
    package.save("model.tar")
    for one in (package, tvm_qat.load("model.tar")):
        assert one.run(inputs)["logits"].tobytes() == wanted
    assert len(package.benchmark(inputs, repeat=2, number=1)) == 2

with emulated_kernels(Path()):
    summary = tvm_qat.verify({str(DEMO)!r}, target=target, samples=1).to_json()["summary"]
assert summary["passed"], summary
compiled = summary["compiled_vs_reference"]
assert compiled["elements"] > 10000 and compiled["layers"] > 10 and compiled["differing"] == 0, compiled
"""
    done = machine.python("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def _result_of(machine: GpuMachine, mod: IRModule, inputs: Sequence[Array], folder: Path) -> Array:
    """What the package of a module with one result makes of its inputs."""
    with emulated_kernels(folder):
        tvm_qat.compile(mod, TARGET).save(folder / "model.tar")
    package = tvm_qat.load(folder / "model.tar")
    np.savez(folder / "in.npz", **dict(zip((i.name for i in package.inputs), inputs, strict=True)))
    words = ("-m", "tvm_qat", "run", "model.tar", "-i", "in.npz", "-o", "out.npz")
    done = machine.python(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as made:
        return made[made.files[0]]


def _run_case(machine: GpuMachine, case: Case, folder: Path) -> None:
    mod = module_of([case])
    main = mod["case0"].with_attr("global_symbol", "main")
    have = _result_of(machine, IRModule({"main": main}), case.inputs, folder)
    np.testing.assert_array_equal(have, expected(mod, 0, case))


def test_what_tvm_itself_makes_of_an_operator_has_the_bits_of_a_cpu(
    machine: GpuMachine, tmp_path: Path
) -> None:
    """Groups are normalized by several kernels of one function, with a reciprocal square root."""
    x = np.random.default_rng(7).normal(size=(6, 197)).astype(np.float32)
    gamma, beta = (const(np.random.default_rng(i).normal(size=6).astype(np.float32)) for i in (8, 9))
    norm = partial(relax.op.nn.group_norm, num_groups=2, channel_axis=0, axes=[1], epsilon=1e-5)
    mod = module_of_steps(lambda data: [norm(data, gamma, beta)], x.shape)
    (wanted,) = tvm_qat.compile(mod, "native").run([x]).values()
    assert _result_of(machine, mod, [x], tmp_path).tobytes() == wanted.tobytes()


@pytest.mark.slow
def test_a_tile_of_more_than_48_kilobytes_is_launched(
    machine: GpuMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "choose_tile", lambda *_: tiles.WIDE)
    case = conv_case("1x1", np.random.default_rng(5), kernel=(1, 1), size=(12, 11), inner=70, outer=130)
    _run_case(machine, case, tmp_path)


def test_shares_of_a_sum_have_memory_of_the_device(machine: GpuMachine, tmp_path: Path) -> None:
    """Which TVM's runtime allocates between the two launches."""
    case = conv_case("3x3", np.random.default_rng(5), size=(5, 5), inner=203, outer=70)
    _run_case(machine, case, tmp_path)
    (source,) = tmp_path.glob("*/kernels.cpp")
    assert "qat_product_share" in source.read_text().split("static void conv2d")[1]


@pytest.mark.slow
def test_ptx_under_the_name_of_source_is_not_run(
    machine: GpuMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `label_as_ptx` is there for."""
    monkeypatch.setattr(link, "label_as_ptx", lambda _file: None)
    with emulated_kernels(tmp_path):
        tvm_qat.compile(DEMO, TARGET).save(tmp_path / "model.tar")
    words = ("-m", "tvm_qat", "run", "model.tar")
    done = machine.python(*words, folder=tmp_path)
    assert done.returncode == 4 and "cannot be loaded" in done.stderr
