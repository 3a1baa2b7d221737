"""Packages are read kernel by kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tvm_qat
from tests.support.onnx_models import f32, model, node
from tests.verification.network import images, network
from tvm_qat import pipeline
from tvm_qat.errors import PackageError
from tvm_qat.ir import op_name
from tvm_qat.package import KernelTime, Package
from tvm_qat.verification.evaluate import evaluate_module


def test_a_trace_gives_the_result_of_each_kernel_before_its_memory_is_used_again():
    mod = network()
    image = {"image": images(1)["image"]}
    values = []
    evaluate_module(pipeline.run(mod), image, lambda var, expr, value: values.append((op_name(expr), value)))
    package = tvm_qat.compile(mod, "llvm")
    steps = [(kernel, result.copy()) for kernel, result in package.trace(image)]
    assert [kernel for kernel, _ in steps] == list(package.meta.schedule.steps)
    for _, result in steps:
        assert any(np.array_equal(result, value) for _, value in values), "no such tensor"


def test_a_package_that_was_loaded_cannot_be_traced(tmp_path):
    tvm_qat.compile(network(), "llvm").save(tmp_path / "p.tar")
    with pytest.raises(PackageError, match="compile the model again"):
        list(tvm_qat.load(tmp_path / "p.tar").trace({"image": images(1)["image"]}))


def with_top_k():
    """TVM's own TopK keeps the kernels on its virtual machine."""
    rng = np.random.default_rng(0)
    nodes = [
        node("QuantizeLinear", "x s z", "q", "quantize"),
        node("DequantizeLinear", "q s z", "d", "dequantize"),
        node("DequantizeLinear", "w s z", "v", "weight"),
        node("Conv", "d v", "c", "conv"),
        node("QuantizeLinear", "c t z", "r", "conv/quantize"),
        node("DequantizeLinear", "r t z", "e", "conv/dequantize"),
        node("TopK", "e k", "y i", "topk", axis=1),
    ]
    constants = {
        "s": f32(0.1), "t": f32(0.2), "z": np.array([0], np.int8), "k": np.array([2]),
        "w": rng.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8),
    }  # fmt: skip
    return model(nodes, {"x": (1, 3, 6, 6)}, ["y", "i"], constants)


def test_kernels_on_the_virtual_machine_are_compared_too():
    made = with_top_k()
    assert tvm_qat.compile(made, "llvm").meta.schedule is None
    found = tvm_qat.verify(made, samples=2, target="llvm")
    compiled = next(stage for stage in found.stages if stage.name == "compiled")
    names = {layer.name: layer.figures for layer in compiled.layers}
    assert names["quantize"].elements == 2 * 108 and names["conv"].elements == 2 * 64
    assert not any(figures.differing for figures in names.values())
    assert [layer.name for layer in compiled.layers if layer.op == "output"] == ["y", "i"]


def test_tvms_own_kernels_are_compared_where_their_place_is_clear():
    nodes = [
        node("CumSum", "x axis", "c", "sums"),
        node("QuantizeLinear", "c s z", "q", "quantize"),
        node("DequantizeLinear", "q s z", "y", "dequantize"),
    ]
    constants = {"axis": np.array(1), "s": f32(0.5), "z": np.array([0], np.int8)}
    found = tvm_qat.verify(model(nodes, {"x": (2, 5)}, ["y"], constants), samples=2, target="llvm")
    compiled = next(stage for stage in found.stages if stage.name == "compiled")
    assert ("sums", "kernel of TVM") in [(layer.name, layer.op) for layer in compiled.layers]
    assert compiled.unnamed == 0 and not any(layer.figures.differing for layer in compiled.layers)


@pytest.mark.parametrize("make", [with_top_k, network])
def test_times_are_those_of_the_step_whatever_its_name(make, monkeypatch: pytest.MonkeyPatch):
    """Names may be shared: a layer has the time of the kernel that it was compared with."""
    real = Package.profile

    def numbered(self: Package, inputs: object) -> list[KernelTime]:
        return [replace(row, name="one", seconds=n + 1.0) for n, row in enumerate(real(self, inputs))]

    monkeypatch.setattr(Package, "profile", numbered)
    found = tvm_qat.verify(make(), samples=1, target="llvm", profile=True)
    compiled = next(stage for stage in found.stages if stage.name == "compiled")
    seconds = [layer.seconds for layer in compiled.layers if layer.op == "kernel"]
    assert len(seconds) > 1 and None not in seconds and seconds == sorted(set(seconds))
    assert all(layer.seconds is None for layer in compiled.layers if layer.op == "output")


def test_a_module_of_any_importer_is_verified_by_the_names_of_its_parameters():
    mod = network()
    for name in ("input_names", "output_names"):
        mod["main"] = mod["main"].without_attr(name)
    found = tvm_qat.verify(mod, {"image": images(1)["image"]}, target="llvm")
    assert found.passed and found.model == "IRModule"
