"""A float torch model and a file of encodings beside it, as for ONNX."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import tvm_qat as tq
from tests.importers.encodings.aimet import VERSIONS, Grid, asymmetric, document, of_weight, written
from tests.importers.encodings.make_data import DATA, KINDS, inputs, network
from tests.importers.frameworks.torch_check import integer_share
from tests.importers.frameworks.torch_models import Net, outputs, pictures, train
from tests.support.layers import check_layers, layers_of
from tests.support.run import imported
from tvm_qat.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = pictures(100, 77)[0]
SHAPE = {"x": [100, 3, 8, 8]}
ACTIVATIONS = ("relu", "deep", "wide_relu", "pool", "last")
WEIGHTS = ("stem", "deep", "wide", "last")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A float network; batch norms are folded, as AIMET folds them before it trains."""
    torch.manual_seed(0)
    net = Net()
    train(net.train(), 30)
    pairs = [["stem", "norm"], ["deep", "deep_norm"]]
    return torch.ao.quantization.fuse_modules(net.eval(), pairs).eval()


@pytest.fixture(scope="module")
def grids(trained: nn.Module) -> dict[str, Grid]:
    """By the names of inputs, modules and parameters."""
    seen = simulate(copy.deepcopy(trained), {})
    found = {name: asymmetric(min(0.0, float(v.min())), float(v.max())) for name, v in seen.items()}
    weights = {f"{name}.weight": trained.get_submodule(name).weight.detach().numpy() for name in WEIGHTS}
    return found | {name: of_weight(value, 0) for name, value in weights.items()}


def simulate(net: nn.Module, grids: dict[str, Grid]) -> dict[str, np.ndarray]:
    """The net with AIMET's fake quantization of what `grids` name: the value of each activation."""
    seen: dict[str, np.ndarray] = {}

    def quantized(name: str, value: torch.Tensor) -> torch.Tensor:
        array = value.detach().numpy()
        seen[name] = grids[name].fake_quantized(array) if name in grids else array
        return torch.from_numpy(seen[name])

    for name in ACTIVATIONS:
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: quantized(name, out))
    for name in WEIGHTS:
        weight = net.get_submodule(name).weight
        if f"{name}.weight" in grids:
            weight.data = torch.from_numpy(grids[f"{name}.weight"].fake_quantized(weight.detach().numpy()))
    net(quantized("x", IMAGES))
    return seen


def sources(net: nn.Module, folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    program = torch.export.export(net, (IMAGES,))
    torch.export.save(program, folder / "net.pt2")
    return [(net, {"input_shapes": SHAPE}), ((net, (IMAGES,)), {}), (program, {}), (folder / "net.pt2", {})]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_layer_is_what_training_simulated(version, trained, grids, tmp_path):
    expected = simulate(copy.deepcopy(trained), grids)
    path = written(tmp_path, document(version, grids))
    every = sources(trained, tmp_path)
    for source, options in every if version == "2.0.0" else every[:1]:
        mod = imported(source, encodings=path, **options)
        layers = {f"{name}/quantize": value for name, value in expected.items()}
        check_layers(mod, {"x": IMAGES.numpy()}, layers)
        assert integer_share(mod) == 1
    (found,) = tq.compile(mod).run({"x": IMAGES.numpy()}).values()
    np.testing.assert_array_equal(found.argmax(1), expected["last"].argmax(1))


def test_what_has_no_encoding_stays_float_and_is_reported(trained, grids, tmp_path):
    some = {name: grid for name, grid in grids.items() if name not in ("deep.weight", "relu")}
    path = written(tmp_path, document("1.0.0", some))
    reasons = [row.reason for row in tq.inspect(trained, encodings=path, input_shapes=SHAPE).layers]
    assert any("no encoding names 'relu', 'deep.weight'" in reason for reason in reasons), reasons
    float_net = simulate(copy.deepcopy(trained), some)["last"]
    (found,) = tq.compile(trained, encodings=path, input_shapes=SHAPE).run({"x": IMAGES.numpy()}).values()
    step = grids["last"].scale[0]
    assert np.abs(found - float_net).max() <= 1.001 * step
    assert np.mean(np.abs(found - float_net) > 0.5 * step) <= 0.01


def test_a_name_that_matches_nothing_is_an_error(trained, grids, tmp_path):
    path = written(tmp_path, document("0.6.1", grids | {"wide.weigth": grids["wide.weight"]}))
    with pytest.raises(InputError, match=r"no tensor 'wide\.weigth' \(closest: 'wide\.weight'"):
        tq.import_model(trained, encodings=path, input_shapes=SHAPE)


def test_a_call_may_be_named_where_no_module_is(tmp_path):
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) + x

    grid = asymmetric(-1.0, 1.0, 4)
    path = written(tmp_path, document("2.0.0", {"relu": grid, "add": grid}))
    mod = imported(Sum(), encodings=path, input_shapes={"x": [4, 10]})
    x = np.linspace(-1.2, 1.2, 40, dtype=np.float32).reshape(4, 10)
    expected = grid.fake_quantized(grid.fake_quantized(np.maximum(x, 0)) + x)
    (found,) = tq.compile(mod).run({"x": x}).values()
    np.testing.assert_array_equal(found, expected)
    names = {
        entry["name"]
        for entry in tq.export_qparams(Sum(), encodings=path, input_shapes={"x": [4, 10]})["encodings"]
    }
    assert names == {"relu", "add"}


def test_the_float_model_alone_is_unchanged(trained):
    (found,) = tq.compile(trained, input_shapes=SHAPE).run({"x": IMAGES.numpy()}).values()
    np.testing.assert_allclose(found, outputs(trained, IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_of_aimets_own_simulation(kind):
    """The file that AIMET saves for a torch model: activations by module, the image as an input of conv1."""
    stored = onnx.load(DATA / f"{kind}.onnx").graph.initializer
    net = network(torch)
    net.bn1, net.bn2 = nn.Identity(), nn.Identity()
    net.conv1.bias = nn.Parameter(torch.zeros(8))  # of the folded batch norm
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in stored}
    net.load_state_dict({name: torch.from_numpy(arrays[name]) for name in net.state_dict()})
    path, shape = DATA / f"{kind}_torch.encodings", {"x": [100, 3, 8, 8]}
    mod = imported(net, encodings=path, input_shapes=shape)
    with np.load(DATA / f"{kind}_layers.npz") as file:
        steps = [file[name] for name in file.files]
    real = [layer.grid.scale * values for layer, values in zip(layers_of(mod), steps, strict=True)]
    check_layers(mod, {"x": inputs()}, real)
    assert integer_share(mod) == 1


def test_an_input_that_others_read_too_is_no_modules_own(tmp_path):
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x) + x

    entry = {"bitwidth": 8, "dtype": "int", "is_symmetric": "False", "offset": -128, "scale": 0.01,
             "min": -1.28, "max": 1.27}  # fmt: skip
    content = {"version": "1.0.0", "activation_encodings": {"act": {"input": {"0": entry}}}}
    path = written(tmp_path, {**content, "param_encodings": {}})
    with pytest.raises(InputError, match="no tensor 'act:input:0'"):
        tq.import_model(Residual(), encodings=path, input_shapes={"x": [4]})
