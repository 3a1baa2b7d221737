"""torchao's QAT linears: int8 activations by token, int4 weights by group, int8 weights by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchao.quantization import quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

from tests.importers.frameworks.torch_models import outputs, pictures, train
from tests.support.run import imported
from tvm_qat import pipeline
from tvm_qat.report import report_of
from tvm_qat.verification.evaluate import evaluate_module

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = pictures(100, 77)[0]

TOKENS = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
GROUPS = IntxFakeQuantizeConfig(torch.int4, group_size=32)
CHANNELS = IntxFakeQuantizeConfig(torch.int8, "per_channel")


class _Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x.flatten(1))))


@pytest.mark.parametrize(
    ("activation", "weight"),
    [(TOKENS, GROUPS), (TOKENS, CHANNELS), (None, CHANNELS)],
    ids=["int8-int4", "int8-int8", "float-int8"],
)
def test_linears_compute_what_training_simulated(activation: Any, weight: Any) -> None:
    """In float: weights lie on their grid, and activations are rounded as they come."""
    torch.manual_seed(0)
    model = _Linears()
    quantize_(model, QATConfig(activation_config=activation, weight_config=weight, step="prepare"))
    train(model, 30, 0.005)
    model.eval()
    expected = outputs(model, IMAGES)
    mod = imported(model, input_shapes={"x": [100, 3, 8, 8]})
    for found in (evaluate_module(mod, [IMAGES.numpy()])[0],
                  evaluate_module(pipeline.run(mod), [IMAGES.numpy()])[0]):  # fmt: skip
        off = np.abs(found - expected)
        assert off.max() <= 0.02 * np.ptp(expected)
        assert np.mean(off > 1e-4 * np.ptp(expected)) <= 0.05
        assert np.mean(found.argmax(1) == expected.argmax(1)) == 1


def test_inspect_says_what_keeps_them_in_float() -> None:
    """The product's own reason, with the node that makes the scales; not its bias' one."""
    model = _Linears()
    quantize_(model, QATConfig(activation_config=TOKENS, weight_config=GROUPS, step="prepare"))
    mod = imported(model.eval(), input_shapes={"x": [2, 3, 8, 8]})
    rows = {layer.name: layer for layer in report_of(pipeline.run(mod)).layers}
    row = rows["linear"]
    made_by = "is computed at run time by `choose_qparams_affine`, one for each row"
    assert (row.op, row.integer, row.code) == ("relax.matmul", False, "dynamic")
    assert row.reason == f"matmul: the scale of its input {made_by}"
    assert "static" in row.remedy
