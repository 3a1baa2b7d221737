"""TorchScript, traced and scripted, with fake quantization and converted, against torch itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import tvm_qat as tq
from tests.importers.frameworks.torchscript_nets import (
    SHAPE,
    converted,
    eager_qat,
    fake_quantized,
    fx_qat,
    images,
    quiet,
)
from tests.support.layers import check_layers
from tvm_qat.ir import bindings_of, source_of
from tvm_qat.verification.evaluate import evaluate_module

INPUT = {"x": SHAPE}


@pytest.fixture(scope="module")
def eager():
    with quiet():
        return eager_qat()


@pytest.fixture(scope="module")
def fx():
    with quiet():
        return fx_qat()


def saved(module, path):
    with quiet():
        torch.jit.save(module, path)
    return path


def check_simulated_layers(model, mod) -> None:
    """Every fake-quantized activation, compiled: what differs lies at a tie."""
    with quiet():
        expected = [value for _scale, value in fake_quantized(model, images())]
    assert len(check_layers(mod, {"x": images().numpy()}, expected)) > 3


def check_outputs(model, source, step: float, **options) -> tq.Package:
    """Compiled code against torch: at most one step of the last grid apart, the same top-1.

    Steps are ties, and biases: torch adds them to converted sums as float32, compiled code as int32.
    """
    with quiet():
        want = model(images()).detach().numpy()
    package = tq.compile(tq.import_model(source, **options), target="llvm")
    (have,) = package.run({"x": images().numpy()}).values()
    steps = np.rint(np.abs(have - want) / step)
    assert steps.max() <= 1 and np.count_nonzero(steps) <= 0.02 * steps.size
    np.testing.assert_array_equal(have.argmax(1), want.argmax(1))
    return package


def test_traced_fake_quantization(eager, tmp_path):
    with quiet():
        traced = torch.jit.trace(eager, images(), check_trace=False)
    path = saved(traced, tmp_path / "net.pt")
    check_simulated_layers(eager, tq.import_model(path, input_shapes=INPUT))
    package = check_outputs(eager, path, float(eager.fc.activation_post_process.scale), input_shapes=INPUT)
    assert package.totals["int8_mac_share"] == 1.0


def test_a_traced_object_knows_its_shapes_and_its_layers_names(eager):
    with quiet():
        mod = tq.import_model(torch.jit.trace(eager, images(), check_trace=False))
    names = {source_of(binding.value) or "" for binding in bindings_of(mod["main"])}
    assert {"conv", "depthwise", "narrow", "fc"} <= {name.partition("/")[0] for name in names}


def test_scripted_fake_quantization(fx, tmp_path):
    """FakeQuantize.forward with its branches on observer_enabled and fake_quant_enabled."""
    with quiet():
        scripted = torch.jit.script(fx)
    path = saved(scripted, tmp_path / "net.pth")
    check_simulated_layers(fx, tq.import_model(path, input_shapes=INPUT))
    last = [part for part in fx.modules() if isinstance(part, torch.ao.quantization.FakeQuantize)]
    scales = {float(part.scale) for part in last if part.scale.numel() == 1}
    package = check_outputs(fx, path, min(scales), input_shapes=INPUT)
    assert package.totals["int8_mac_share"] == 1.0


def test_observers_that_are_on_do_not_move_the_ranges(fx):
    with quiet():
        fx.apply(torch.ao.quantization.enable_observer)
        scripted = torch.jit.script(fx)
        fx.apply(torch.ao.quantization.disable_observer)
        plain = torch.jit.script(fx)
    mods = [tq.import_model(module, input_shapes=INPUT) for module in (scripted, plain)]
    outputs = [evaluate_module(mod, {"x": images().numpy()})[0] for mod in mods]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("how", ["script", "trace", "live"])
def test_converted_modules(eager, tmp_path, how):
    with quiet():
        model = converted(eager)
        if how == "live":
            source = model
        else:
            module = torch.jit.script(model) if how == "script" else torch.jit.trace(model, images())
            source = saved(module, tmp_path / "net.pt")
    package = check_outputs(model, source, model.fc.scale, input_shapes=INPUT)
    assert package.totals["int8_mac_share"] == 1.0


def test_every_layer_of_a_converted_module(eager):
    """The sum is no module: it is what `narrow` reads. Both of its operands may be at a tie."""
    expected = []

    def keep(tensor) -> None:
        expected.append(tensor.int_repr().numpy())

    with quiet():
        model = converted(eager)
        hooks = [
            part.register_forward_hook(lambda _m, _i, out: keep(out))
            for part in (model.quant, model.conv, model.depthwise, model.narrow, model.fc)
        ]
        hooks.append(model.narrow.register_forward_pre_hook(lambda _m, inputs: keep(inputs[0])))
        model(images())
        for hook in hooks:
            hook.remove()
        mod = tq.import_model(model, input_shapes=INPUT)
    assert len(check_layers(mod, {"x": images().numpy()}, expected, most=2)) == 6


def test_a_module_converted_by_fx(fx, tmp_path):
    from torch.ao.quantization.quantize_fx import convert_fx

    with quiet():
        model = convert_fx(copy.deepcopy(fx).eval())
        path = saved(torch.jit.script(model), tmp_path / "net.pt")
    package = check_outputs(model, path, model.fc.scale, input_shapes=INPUT)
    assert package.totals["int8_mac_share"] == 1.0


def test_quantize_per_tensor_bit_for_bit():
    """A million values, half of them beside ties: the fused formula, compiled."""
    rng = np.random.default_rng(3)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.dequantize(torch.quantize_per_tensor(x, 0.0374, 73, torch.quint8))

    scale = np.float32(0.0374)
    x = np.where(
        rng.random(1_000_000) < 0.5,
        (rng.integers(-300, 300, 1_000_000) + 0.5) * scale,
        rng.normal(0, 4, 1_000_000),
    ).astype(np.float32)
    x = np.nextafter(x, np.where(rng.random(x.size) < 0.5, np.inf, -np.inf).astype(np.float32))
    x[:4] = [np.inf, -np.inf, 3e38, -3e38]
    with quiet():
        scripted = torch.jit.script(Net())
        want = scripted(torch.from_numpy(x)).numpy()
    for target in ("llvm", "llvm -mcpu=x86-64-v3"):
        package = tq.compile(tq.import_model(scripted, input_shapes={"x": x.shape}), target=target)
        np.testing.assert_array_equal(package.run({"x": x})["output"], want)
