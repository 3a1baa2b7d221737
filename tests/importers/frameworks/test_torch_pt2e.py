"""PT2E quantization-aware training with torchao: prepared and converted, live, exported and saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchao.quantization.pt2e as pt2e
from torch.export import Dim
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from tests.importers.frameworks.torch_check import check_simulation, integer_share, recorded, recorded_calls
from tests.importers.frameworks.torch_models import Net, outputs, pictures, train
from tvm_qat.importers import import_model
from tvm_qat.ir import bindings_of, shape_of, source_of

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = pictures(100, 77)[0]
BATCH = ({0: Dim("n", min=2)},)


@pytest.fixture(scope="module")
def prepared() -> Any:
    torch.manual_seed(0)
    program = torch.export.export(Net().train(), (pictures(64)[0],), dynamic_shapes=BATCH)
    config = get_default_x86_inductor_quantization_config(is_qat=True)
    model = prepare_qat_pt2e(program.module(), X86InductorQuantizer().set_global(config))
    train(model, 40)
    return model


@pytest.fixture(scope="module")
def frozen(prepared: Any) -> Any:
    """In eval mode, with observers off."""
    model = copy.deepcopy(prepared)
    pt2e.move_exported_model_to_eval(model)
    for part in model.modules():
        if hasattr(part, "disable_observer"):
            part.disable_observer()
    return model


def _step(expected: np.ndarray) -> float:
    """The last layer has no grid; one step of its input moves the result by less than this."""
    return float(np.ptp(expected)) / 127


def test_prepared_module_even_in_training_mode(prepared: Any, frozen: Any) -> None:
    expected = outputs(frozen, IMAGES)
    layers = recorded(frozen, IMAGES)
    for source in (prepared, frozen):
        mod = check_simulation((source, (IMAGES,)), IMAGES, expected, step=_step(expected), layers=layers)
        assert integer_share(mod) == 1


def test_prepared_program_with_open_batch(frozen: Any) -> None:
    expected = outputs(frozen, IMAGES)
    program = torch.export.export(frozen, (IMAGES,), dynamic_shapes=BATCH)
    layers = recorded(frozen, IMAGES)
    mod = check_simulation(program, IMAGES, expected, step=_step(expected), layers=layers)
    assert not isinstance(shape_of(mod["main"].params[0])[0], int)


def test_converted_program_saved_and_loaded(frozen: Any, tmp_path: Path) -> None:
    converted = convert_pt2e(copy.deepcopy(frozen))
    expected = outputs(converted, IMAGES)
    program = torch.export.export(converted, (IMAGES,), dynamic_shapes=BATCH)
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    layers = recorded_calls(program, IMAGES)
    for source in (program, path, path.read_bytes()):
        mod = check_simulation(source, IMAGES, expected, step=_step(expected), layers=layers)
        assert integer_share(mod) == 1


def test_names_of_calls_are_kept(frozen: Any) -> None:
    program = torch.export.export(frozen, (IMAGES,))
    names = {source_of(binding.value) for binding in bindings_of(import_model(program)["main"])}
    assert {"conv2d", "conv2d_1", "conv2d_2", "linear"} <= names


def test_batch_can_be_fixed(frozen: Any) -> None:
    program = torch.export.export(frozen, (IMAGES,), dynamic_shapes=BATCH)
    mod = import_model(program, input_shapes={"x": [1, 3, 8, 8]})
    assert shape_of(mod["main"].params[0]) == (1, 3, 8, 8)
