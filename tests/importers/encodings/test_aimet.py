"""Networks that AIMET itself trained and exported (`make_data.py`), against its own simulation."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.encodings.make_data import DATA, KINDS, inputs
from tests.support.layers import check_layers, layers_of
from tests.support.run import imported

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")


@pytest.mark.parametrize(
    "version", [*(pytest.param(old, marks=pytest.mark.slow) for old in VERSIONS[:-1]), VERSIONS[-1]]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_of_an_export_is_the_trained_network_but_for_ties(kind, version):
    """Compiled code beside every tensor that AIMET's own simulation quantized."""
    mod = imported(DATA / f"{kind}.onnx", encodings=DATA / f"{kind}_{version}.encodings")
    with np.load(DATA / f"{kind}_layers.npz") as stored:
        steps = [stored[name] for name in stored.files]
    layers = layers_of(mod)
    steps.insert(6, steps[5].reshape(100, 96))  # a Flatten has an encoding, but AIMET does not round there
    real = [layer.grid.scale * values for layer, values in zip(layers, steps, strict=True)]
    check_layers(mod, {"image": inputs()}, real)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_runs_on_integers_and_agrees(kind):
    model, path = DATA / f"{kind}.onnx", DATA / f"{kind}_2.0.0.encodings"
    package = tq.compile(model, encodings=path)
    assert package.totals["int8_mac_share"] == 1.0 and package.totals["float_operators"] == 0
    with np.load(DATA / f"{kind}_layers.npz") as stored:
        expected = stored[stored.files[-1]]
    found = package.run({"image": inputs()})["logits"]
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_all_versions_of_an_export_say_the_same(kind):
    model = DATA / f"{kind}.onnx"
    exported = [
        tq.export_qparams(model, encodings=DATA / f"{kind}_{version}.encodings") for version in VERSIONS
    ]
    assert exported[0] == exported[1] == exported[2]
