"""`verify --reduce` cuts out the nodes at fault, under their own names, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.conftest import DEMO, Call
from tests.verification.network import Fault, planted, with_operand
from tvm_qat import compiler, pipeline
from tvm_qat.compiler import compile_folded
from tvm_qat.ir import IRModule
from tvm_qat.verification import run

CNN = str(DEMO / "digits_cnn.onnx")
MLP = str(DEMO / "digits_mlp.onnx")
ZERO_POINT: Fault = with_operand("output_zero_point", lambda z: z + 1)


def fold_with_fault(patch: pytest.MonkeyPatch, node: str) -> None:
    """From now on folding makes a fault, in models that have the node."""
    cancel = pipeline.PASSES["cancel_requantize_pairs"]

    def faulty(mod: IRModule) -> IRModule:
        try:
            return planted(cancel(mod), node, "qnn.requantize", ZERO_POINT)
        except AssertionError:
            return cancel(mod)

    patch.setitem(pipeline.PASSES, "cancel_requantize_pairs", faulty)


def compile_with_fault(patch: pytest.MonkeyPatch, node: str) -> None:
    """From now on kernels compute something else than the reference, in models that have the node."""

    def compiled(source: IRModule, _folded: IRModule, target: Any) -> Any:
        with pytest.MonkeyPatch.context() as folding:
            fold_with_fault(folding, node)
            return compile_folded(source, pipeline.run(source), target)

    patch.setattr(run, "compile_folded", compiled)


def reduced(call: Call, model: str, folder: Path, *flags: object) -> tuple[Any, onnx.ModelProto, dict]:
    """The run, and the two files that it wrote, which alone show the same with `verify`."""
    path = folder / "out.onnx"
    shown = call("verify", model, "--samples", 1, "--target", "llvm", "--reduce", path, *flags)
    assert sorted(folder.iterdir()) == [path.with_suffix(".npz"), path]
    again = call("verify", path, "-i", path.with_suffix(".npz"), "--target", "llvm", *flags)
    assert again.code == shown.code
    return shown, onnx.load(path), dict(np.load(path.with_suffix(".npz")))


def names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node}


@pytest.mark.parametrize(
    ("kind", "network", "node"),
    [
        pytest.param("folding", MLP, "fc2/add", id="folding"),
        pytest.param("folding", CNN, "block2/conv1", id="folding of the CNN", marks=pytest.mark.slow),
        pytest.param("kernel", CNN, "block2/conv1", id="kernel of the CNN", marks=pytest.mark.slow),
    ],
)
def test_a_fault_is_reduced_to_the_nodes_around_it(
    kind: str, network: str, node: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plant = compile_with_fault if kind == "kernel" else fold_with_fault
    plant(monkeypatch, node)
    shown, model, inputs = reduced(call, network, tmp_path, "--max-steps", 0.5)
    assert shown.code == 1 and node in shown.err
    assert node in names(model) and len(model.graph.node) <= 8
    assert names(model) < names(onnx.load(network))
    assert set(inputs) == {info.name for info in model.graph.input}


def test_a_failing_kernel_is_reduced_to_its_node(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lower = compiler.kernels.lower

    def failing(mod: IRModule, target: Any) -> IRModule:
        if "relax.nn.softmax" in str(mod.script()).replace("R.nn", "relax.nn"):
            raise RuntimeError("no kernel for softmax")
        return lower(mod, target)

    monkeypatch.setattr(compiler.kernels, "lower", failing)
    path = tmp_path / "out.onnx"
    with pytest.raises(RuntimeError, match="no kernel"):
        call("verify", MLP, "--samples", 1, "--target", "llvm", "--reduce", path)
    model, inputs = onnx.load(path), np.load(path.with_suffix(".npz"))
    assert [node.name for node in model.graph.node] == ["softmax"]
    assert list(inputs) == [model.graph.node[0].input[0]]


def test_of_a_clean_model_nothing_is_written(call: Call, tmp_path: Path):
    shown = call("verify", MLP, "--samples", 1, "--target", "llvm", "--reduce", tmp_path / "out.onnx")
    assert shown.code == 0 and "nothing differs" in shown.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("model", "out"), [("model.tflite", "out.onnx"), (MLP, "out.bin")])
def test_what_cannot_be_reduced_is_refused_first(call: Call, tmp_path: Path, model: str, out: str):
    refused = call("verify", model, "--reduce", tmp_path / out)
    assert refused.code == 4 and refused.refused_in_one_line and "onnx" in refused.err.lower()
    assert not list(tmp_path.iterdir())


def test_the_model_itself_is_never_overwritten(call: Call, tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(Path(MLP).read_bytes())
    refused = call("verify", model, "--reduce", tmp_path / "." / "model.onnx")
    assert refused.code == 4 and "reads it" in refused.err
    assert model.read_bytes() == Path(MLP).read_bytes() and list(tmp_path.iterdir()) == [model]
