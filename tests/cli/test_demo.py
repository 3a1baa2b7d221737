from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import DEMO, Call


@pytest.mark.parametrize("model", [pytest.param("digits_cnn", marks=pytest.mark.slow), "digits_mlp"])
def test_the_demo_proves_what_it_promises(call: Call, model: str):
    result = call("demo", "--model", model, "--json")
    document = json.loads(result.out)
    assert result.code == 0 and document["passed"]
    assert document["images"] == 450
    assert document["largest_steps"] <= 1
    assert document["compiled_accuracy"] >= document["float_accuracy"] - 1
    assert abs(document["compiled_accuracy"] - document["simulated_accuracy"]) <= 0.25
    assert document["totals"]["int8_mac_share"] == 1.0
    assert document["seconds"] > 0 and document["package_bytes"] > 0


def test_the_demo_prints_every_figure(call: Call):
    shown = call("demo", "--model", "digits_mlp").out
    words = (
        "operators on integers",
        "float model",
        "simulated",
        "compiled",
        "steps apart",
        "Latency",
        "Size",
    )
    assert [word for word in words if word not in shown] == []


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in Path(DEMO).iterdir()) < 500_000
