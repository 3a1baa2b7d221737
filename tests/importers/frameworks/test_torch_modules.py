"""Live modules after prepare_qat: fused and non-fused FakeQuantize, FX, learned scales."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization import quantize_fx
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

from tests.importers.frameworks.torch_check import check_simulation, integer_share, recorded
from tests.importers.frameworks.torch_models import Net, outputs, pictures, train
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.ir import bindings_of, op_name

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE = {"x": [100, 3, 8, 8]}
IMAGES = pictures(100, 77)[0]
_FUSED = [["stem", "norm", "relu"], ["deep", "deep_norm"], ["wide", "wide_relu"]]

NON_FUSED = tq.QConfig(
    activation=tq.FakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    ),
    weight=tq.default_per_channel_weight_fake_quant,
)


def trained(qconfig: Any, steps: int = 40) -> nn.Module:
    torch.manual_seed(0)
    torch.backends.quantized.engine = "x86"
    model = Net(stubs=True).train()
    model.qconfig = qconfig
    tq.fuse_modules_qat(model, _FUSED, inplace=True)
    tq.prepare_qat(model, inplace=True)
    train(model, steps)
    return model.eval()


def simulation(model: nn.Module) -> dict[str, Any]:
    """What torch computes with observers off: the outputs, and every fake-quantized activation."""
    plain = copy.deepcopy(model)
    plain.apply(tq.disable_observer)
    return {"expected": outputs(plain, IMAGES), "layers": recorded(plain, IMAGES)}


def last_step(model: nn.Module) -> float:
    return float(model.last.activation_post_process.scale)


@pytest.mark.parametrize(
    "qconfig", [tq.get_default_qat_qconfig("x86"), NON_FUSED], ids=["fused", "non-fused"]
)
def test_eager_module(qconfig: Any) -> None:
    model = trained(qconfig)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mod = check_simulation(model, IMAGES, **simulation(model), step=last_step(model), input_shapes=SHAPE)
    assert integer_share(mod) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fake_quantization_that_is_off_is_left_out() -> None:
    model = trained(NON_FUSED, 2)
    model.apply(tq.disable_fake_quant)
    text = import_model(model, input_shapes=SHAPE).script(show_meta=False)
    assert "fake_quantize" not in text


def test_fx_module() -> None:
    torch.manual_seed(0)
    model = quantize_fx.prepare_qat_fx(Net().train(), tq.get_default_qat_qconfig_mapping("x86"), (IMAGES,))
    train(model, 40)
    model.eval()
    found = simulation(model)
    mod = check_simulation((model, (IMAGES,)), IMAGES, **found, step=np.ptp(found["expected"]) / 127)
    assert integer_share(mod) == 1


def _learnable(low: int, high: int, dtype: torch.dtype, scheme: torch.qscheme) -> Any:
    return _LearnableFakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=low, quant_max=high, dtype=dtype,
        qscheme=scheme, use_grad_scaling=True,
    )  # fmt: skip


def test_learned_scales_of_torchs_own_module() -> None:
    torch.manual_seed(0)
    model = Net(stubs=True).train()
    model.qconfig = tq.QConfig(
        activation=_learnable(0, 255, torch.quint8, torch.per_tensor_affine),
        weight=_learnable(-128, 127, torch.qint8, torch.per_tensor_symmetric),
    )
    tq.fuse_modules_qat(model, _FUSED, inplace=True)
    tq.prepare_qat(model, inplace=True)
    learned = [part for part in model.modules() if isinstance(part, _LearnableFakeQuantize)]
    for part in learned:
        part.enable_static_estimate()
    train(model, 20)
    for part in learned:
        part.enable_param_learning()
    before = [float(part.scale) for part in learned]
    train(model, 20, 0.005, 3)
    assert [float(part.scale) for part in learned] != before
    model.eval()
    mod = check_simulation(model, IMAGES, **simulation(model), step=last_step(model), input_shapes=SHAPE)
    assert integer_share(mod) == 1


class _Learned(nn.Module):
    """LSQ with torch's learnable operators, as users write it."""

    def __init__(self, low: int, high: int, channels: int = 1, start: float = 0.05) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))
        self.zero_point = nn.Parameter(torch.zeros(channels))
        self.range = low, high
        self.per_channel = channels > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grad = (x.numel() * self.range[1]) ** -0.5
        if self.per_channel:
            return torch._fake_quantize_learnable_per_channel_affine(
                x, self.scale, self.zero_point, 0, *self.range, grad
            )
        return torch._fake_quantize_learnable_per_tensor_affine(
            x, self.scale, self.zero_point, *self.range, grad
        )


class _LearnedNet(nn.Module):
    """Four-bit weights in the convolution, eight bits elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(128, 4)
        self.inner, self.outer, self.end = _Learned(-128, 127), _Learned(0, 255), _Learned(-128, 127, 1, 0.1)
        self.conv_weight, self.last_weight = _Learned(-8, 7, 8), _Learned(-127, 127, 4, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv_weight(self.conv.weight)
        x = nn.functional.conv2d(self.inner(x), weight, self.conv.bias, padding=1)
        x = nn.functional.max_pool2d(self.outer(torch.relu(x)), 2).flatten(1)
        return self.end(nn.functional.linear(x, self.last_weight(self.last.weight), self.last.bias))


def test_learned_scales_of_a_users_module() -> None:
    torch.manual_seed(0)
    model = _LearnedNet()
    train(model, 40, 0.002)
    assert float(model.inner.scale) != 0.05
    model.eval()
    expected = outputs(model, IMAGES)
    layers = recorded(model, IMAGES, _Learned)
    step = float(model.end.scale)
    mod = check_simulation(model, IMAGES, expected, step=step, layers=layers, input_shapes=SHAPE)
    assert integer_share(mod) == 1


def test_observer_without_data_is_refused() -> None:
    model = Net(stubs=True).train()
    model.qconfig = NON_FUSED
    tq.prepare_qat(model, inplace=True)
    with pytest.raises(InputError, match=r"'quant.activation_post_process'.*seen no data"):
        import_model(model, input_shapes=SHAPE)


def test_inputs_must_be_given() -> None:
    with pytest.raises(InputError, match="shapes of its inputs are needed: x"):
        import_model(Net())
    with pytest.raises(InputError, match="must be positive"):
        import_model(Net(), input_shapes={"x": [0, 3, 8, 8]})


def test_modules_beside_an_exported_one_are_at_inference_too() -> None:
    class Switches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.neg(x) if self.training else torch.abs(x)

    inner = torch.export.export(nn.ReLU(), (torch.zeros(2),)).module()
    mod = import_model(nn.Sequential(inner, Switches()), input_shapes={"input": [2]})
    found = [op_name(b.value) for b in bindings_of(mod["main"])]
    assert found[:2] == ["relax.nn.relu", "relax.abs"]


def test_module_that_cannot_be_exported_is_refused_in_one_line() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match=r"torch\.export cannot export it") as caught:
        import_model(Branches(), input_shapes={"x": [2]})
    assert "\n" not in str(caught.value)
