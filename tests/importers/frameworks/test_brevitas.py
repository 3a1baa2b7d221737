"""A network trained with Brevitas, exported as QONNX and as quantize-clip-dequantize."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.support.layers import check_layers, layers_of
from tests.support.onnx_models import f32, model, node
from tests.support.run import simulate
from tvm_qat import compile as compile_model
from tvm_qat.importers import import_model
from tvm_qat.importers.onnx.qonnx import ROUNDINGS

with warnings.catch_warnings():  # of what these packages import themselves
    warnings.simplefilter("ignore")
    from brevitas.export import export_onnx_qcdq, export_qonnx
    from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
    from brevitas.quant import Int8WeightPerChannelFloat
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.general.intquant import int_quant

pytestmark = [pytest.mark.filterwarnings("ignore")]

EXPORTS = {"qonnx": export_qonnx, "qcdq": export_onnx_qcdq}


class Net(nn.Module):
    """8-bit input, 4-bit weights and activations, 8-bit weights per channel, 3-bit classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.conv1 = QuantConv2d(1, 8, 3, padding=1, weight_bit_width=4, bias=True)
        self.norm1 = nn.BatchNorm2d(8)
        self.relu1 = QuantReLU(bit_width=4, return_quant_tensor=True)
        self.conv2 = QuantConv2d(
            8, 8, 3, stride=2, padding=1, weight_quant=Int8WeightPerChannelFloat, bias=True
        )
        self.relu2 = QuantReLU(bit_width=6, return_quant_tensor=True)
        self.classify = QuantLinear(8 * 16, 4, bias=True, weight_bit_width=3)

    def forward(self, x):
        x = self.relu1(self.norm1(self.conv1(self.quant(x))))
        return self.classify(self.relu2(self.conv2(x)).flatten(1))


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in four directions, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    row, column = np.mgrid[:8, :8]
    phases = np.stack([row, column, row + column, row - column])[labels]
    waves = np.sin(phases * 1.6 + rng.uniform(0, 6, (count, 1, 1)))
    return (waves + rng.normal(0, 0.3, waves.shape)).astype(np.float32)[:, None], labels


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    x, labels = (torch.from_numpy(a) for a in images(512, 1))
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, trained, tmp_path_factory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("brevitas") / f"{request.param}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        EXPORTS[request.param](trained, torch.zeros(100, 1, 8, 8), str(path))
    return onnx.load(path)


def test_the_trained_network_runs_on_integers_and_agrees(trained, exported):
    package = compile_model(exported, target="llvm")
    assert package.totals["int8_mac_share"] == 1
    x, labels = images(100, 2)
    name = exported.graph.input[0].name
    (found,) = package.run({name: x}).values()
    with torch.no_grad():
        want = trained(torch.from_numpy(x)).numpy()
    assert np.mean(found.argmax(1) == want.argmax(1)) == 1
    assert np.mean(want.argmax(1) == labels) > 0.9
    # What is imported is what Brevitas computes.
    (same,) = simulate(exported, {name: x}).values()
    np.testing.assert_allclose(same, want, atol=1e-4)
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_every_layer_is_that_of_brevitas_but_for_ties(trained, exported):
    """Quantized activations, by hooks on Brevitas' own modules."""
    x, _ = images(100, 2)
    seen = []
    parts = (trained.quant, trained.relu1, trained.relu2)
    hooks = [p.register_forward_hook(lambda _m, _i, out: seen.append(out.value.numpy())) for p in parts]
    with torch.no_grad():
        trained(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    check_layers(import_model(exported), {exported.graph.input[0].name: x}, seen)


@pytest.mark.parametrize("exported", ["qonnx"], indirect=True)  # qonnx executes its own nodes only
def test_every_layer_is_that_of_the_qonnx_package_but_for_ties(exported, monkeypatch):
    """All intermediate tensors of its execution, by the names of the nodes that make them."""
    x, _ = images(100, 2)
    name = exported.graph.input[0].name
    monkeypatch.setattr(onnx, "IR_VERSION", 10)  # of the single nodes that it gives to onnxruntime
    tensors = execute_onnx(ModelWrapper(exported), {name: x}, return_full_exec_context=True)
    mod = import_model(exported)
    made = {node.name: node.output[0] for node in exported.graph.node}
    check_layers(mod, {name: x}, {layer.name: tensors[made[layer.name]] for layer in layers_of(mod)})


def _quant(bits, zero, **attrs):
    constants = {"s": f32(0.3), "z": f32(zero), "b": f32(bits)}
    return model(
        [node("Quant", "x s z b", "y", "q", "qonnx.custom_op.general", **attrs)],
        {"x": (60, 100)}, ["y"], constants, opset=13, domains={"qonnx.custom_op.general": 1},
    )  # fmt: skip


@pytest.mark.parametrize("rounding_mode", sorted(set(ROUNDINGS) - {"ROUND_TO_ZERO"}))
@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "zero"), [(4, 1, 1, 0), (8, 0, 0, 3), (1, 1, 0, 0), (2, 0, 1, 1)]
)
def test_quant_is_bit_for_bit_that_of_the_qonnx_package(rounding_mode, bits, signed, narrow, zero):
    attrs = {"rounding_mode": rounding_mode, "signed": signed, "narrow": narrow}
    rng = np.random.default_rng(bits)
    x = np.concatenate([rng.normal(0, 3, 3000), np.arange(-1500, 1500) * 0.15]).astype(np.float32)
    x = x.reshape(60, 100)
    scale, offset, width = np.float32(0.3), np.float32(zero), np.float32(bits)
    want = int_quant(x, scale, offset, width, signed, narrow, rounding_mode).astype(np.float32)
    found = simulate(_quant(bits, zero, **attrs), {"x": x})["y"]
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("rounding_mode", ["FLOOR", "ROUND", "CEIL"])
def test_trunc_is_bit_for_bit_that_of_the_qonnx_package(second, rounding_mode):
    names = "x s z i t o" if second else "x s z i o"
    attrs = {"rounding_mode": rounding_mode} | ({"signed": 1, "narrow": 0} if second else {})
    constants = {"s": f32(0.25), "z": f32(0), "i": f32(8), "t": f32(2), "o": f32(5)}
    used = {name: value for name, value in constants.items() if name in names.split()}
    domain = "qonnx.custom_op.general"
    made = model(
        [node("Trunc", names, "y", "t", domain, **attrs)], {"x": (60, 100)}, ["y"], used, opset=13,
        domains={domain: 2 if second else 1},
    )  # fmt: skip
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, (60, 100)))
    x = (np.random.default_rng(0).integers(-512, 512, (60, 100)) / 8).astype(np.float32)
    want = execute_onnx(ModelWrapper(made), {"x": x})["y"]
    np.testing.assert_array_equal(simulate(made, {"x": x})["y"], want)
