"""`verify` on networks of PyTorch, beside PyTorch itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tvm_qat
from tests.importers.frameworks.test_torch_modules import NON_FUSED, trained
from tests.importers.frameworks.torch_models import pictures
from tvm_qat.importers.torch.live import exported

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = pictures(8, 5)[0]


def _check(model: object, **options: object) -> None:
    data = {"x": np.tile(IMAGES.numpy(), (2, 1, 1, 1))}
    found = tvm_qat.verify(model, data, target="llvm", against="torch", max_steps=1, **options)
    assert found.passed and found.samples == 16
    reference = found.summaries["reference_vs_simulation"]
    assert reference.unexplained == 0 and reference.layers >= 5
    (output,) = next(stage for stage in found.stages if stage.against == "torch").layers
    compiled = next(stage for stage in found.stages if stage.name == "compiled")
    (ours,) = (layer for layer in compiled.layers if layer.op == "output")
    assert output.figures.elements == ours.figures.elements
    # a tie in a layer above may move an output by a step
    assert output.figures.cosine > 0.999


def test_a_live_module_is_verified_and_not_touched() -> None:
    model = trained(NON_FUSED, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _check(model, input_shapes={"x": [8, 3, 8, 8]})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_exported_program_is_verified(tmp_path: Path) -> None:
    program = exported(trained(NON_FUSED, 5), (IMAGES,), {}, "model")
    torch.export.save(program, tmp_path / "model.pt2")
    _check(str(tmp_path / "model.pt2"))
