"""Sizes that are known only when a kernel runs: TVM's runtime on the emulated GPU, the reference's bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tvm_qat
from tests.kernels.cases import CASES
from tests.support.attention import WIDTH, encoder
from tests.support.corpus import needs_corpus, onnx_models
from tests.support.cuda import OLDER, TARGET, needs_compiler, needs_nvcc
from tests.support.gpu_machine import EARLY, GpuMachine, emulated_kernels
from tests.support.open_sizes import FUSED, OPEN_MODELS, open_cases
from tvm_qat.errors import InputError
from tvm_qat.kernels.cuda.symbols import TOO_MANY

pytestmark = [needs_compiler, needs_nvcc]

DEMO = Path(__file__).resolve().parents[2] / "tvm_qat/data/demo/digits_mlp.onnx"
DEFAULT = ("qnn.dense",)
OPERATORS = [name for name in (*CASES, FUSED) if open_cases(name)]


@pytest.mark.parametrize(
    ("operator", "target"),
    [
        *(pytest.param(op, TARGET, marks=() if op in DEFAULT else pytest.mark.slow) for op in OPERATORS),
        *(pytest.param(op, OLDER, marks=pytest.mark.slow) for op in ("qnn.dense", "qnn.batch_matmul", FUSED)),
    ],
)
def test_every_size_has_the_bits_of_the_reference(
    operator: str, target: dict[str, str], machine: GpuMachine, tmp_path: Path
) -> None:
    done = machine.python("-m", "tests.support.open_sizes", operator, target["arch"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(open_cases(operator))} cases" in done.stdout


def _check(path: Path, shapes: list[tuple[int, ...]], machine: GpuMachine, folder: Path) -> None:
    """A model with one input, run with inputs of each shape as a user runs it."""
    here = tvm_qat.compile(path, "native")
    with emulated_kernels(folder):
        tvm_qat.compile(path, TARGET).save(folder / "model.tar")
    (name,) = (info.name for info in here.inputs)
    inputs = [np.random.default_rng(i).normal(size=shape).astype("f") for i, shape in enumerate(shapes)]
    np.savez(folder / "in.npz", *inputs)
    done = machine.python("-c", _RUN.format(name=name, early=EARLY), folder=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as made:
        for i, array in enumerate(inputs):
            for output, wanted in here.run({name: array}).items():
                for early in "01":
                    have = made[f"{i} {early} {output}"]
                    assert (have.dtype, have.shape) == (wanted.dtype, wanted.shape), (array.shape, output)
                    assert have.tobytes() == wanted.tobytes(), (array.shape, output)


_RUN = """
import os
import numpy as np
import tvm_qat

package, results = tvm_qat.load("model.tar"), {{}}
with np.load("in.npz") as inputs:
    for i, array in enumerate(inputs.values()):
        for early in "01":
            os.environ["{early}"] = early
            for output, values in package.run({{"{name}": array}}).items():
                results[f"{{i}} {{early}} {{output}}"] = values
np.savez("out.npz", **results)
"""


def test_any_batch(machine: GpuMachine, tmp_path: Path) -> None:
    _check(DEMO, [(n, 1, 16, 16) for n in (1, 3, 130)], machine, tmp_path)


@pytest.mark.slow
def test_any_batch_and_sequence(machine: GpuMachine, tmp_path: Path) -> None:
    """Attention with softmax over an unknown length; none of either too."""
    onnx.save(encoder(), tmp_path / "encoder.onnx")
    sizes = [(1, 1), (2, 7), (3, 65), (1, 128), (0, 5), (2, 0)]
    _check(tmp_path / "encoder.onnx", [(*size, WIDTH) for size in sizes], machine, tmp_path)


@needs_corpus
@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN_MODELS)
def test_models_of_any_batch(name: str, machine: GpuMachine, tmp_path: Path) -> None:
    (path,) = (path for path in onnx_models() if path.name == name)
    _check(path, [(n, *OPEN_MODELS[name]) for n in (0, 1, 3)], machine, tmp_path)


def test_more_elements_than_can_be_counted_are_refused(machine: GpuMachine, tmp_path: Path) -> None:
    """A tensor of 2^31 bytes, which neither machine touches."""
    script = f"""
from tests.kernels.harness import module_of
from tests.support.open_sizes import machine_for, open_cases
from tvm_qat.ir import tvm

(case,) = open_cases("qnn.concatenate")
with machine_for(module_of([case]), {TARGET!r}) as machine:
    huge = [tvm.runtime.empty((2**31, *x.shape[1:]), str(x.dtype), tvm.cuda(0)) for x in case.inputs]
    machine["case0"](*huge)
"""
    done = machine.python("-c", script, folder=tmp_path)
    assert "ValueError: kernels for a GPU count elements in 32 bits" in done.stderr


def test_what_a_kernel_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    package = tvm_qat.compile(DEMO, "native")

    def refuse(*_: object) -> None:
        raise ValueError(TOO_MANY)

    monkeypatch.setitem(package.__dict__, "_main", refuse)
    with pytest.raises(InputError, match="in 32 bits, and a tensor has more of them; run fewer samples"):
        package.run(package.random_inputs())
