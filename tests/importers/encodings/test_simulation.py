"""Float networks with encodings against onnxruntime's simulation of them in float."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.encodings.aimet import VERSIONS, differences, document, simulated, written
from tests.importers.encodings.networks import NETWORKS
from tests.support.run import imported, random_inputs, simulate
from tvm_qat import pipeline
from tvm_qat.report import report_of
from tvm_qat.verification.evaluate import evaluate_module

MOST_OTHERS = 0.05
"""Share of outputs that may be the neighbouring step: the float bias becomes a whole number of steps
of the accumulator, and averages of 64 integers often lie in the middle between two."""


def check(network, grids, version, tmp_path, most=MOST_OTHERS, steps=1):
    """100 inputs: the NumPy reference, which compiled code equals, within `steps` of the simulation."""
    path = written(tmp_path, document(version, grids))
    inputs = random_inputs(network.model, seed=9)
    (name, expected), *_ = simulated(network.model, grids, inputs).items()
    mod = imported(network.model, encodings=path)
    folded = pipeline.run(mod)
    (found,) = evaluate_module(folded, inputs)
    step, share = differences(found, expected, grids[name].scale)
    assert step <= steps and share <= most
    assert report_of(folded, mod).totals["int8_mac_share"] == 1.0
    margin = np.sort(expected, -1)[..., -1] - np.sort(expected, -1)[..., -2]
    clear = margin > 2.5 * grids[name].scale[0]
    assert np.array_equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_what_training_simulated(version, tmp_path):
    network = NETWORKS["cnn"]()
    check(network, network.grids(), version, tmp_path)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"channels": False}, MOST_OTHERS),
        ({"strict": True, "like": "symmetric"}, MOST_OTHERS),
        ({"like": "unsigned"}, MOST_OTHERS),
        ({"bits": 4}, 0.3),
        ({"bits": 4, "channels": False, "like": "symmetric"}, 0.3),
    ],
    ids=str,
)
def test_every_kind_of_grid(options, most, tmp_path):
    """With 4-bit weights the steps of an accumulator are 16 times as wide, and the bias as coarse: each
    layer is within one step, five of them together within two."""
    network, version = NETWORKS["cnn"](), "1.0.0" if options.get("strict") else "0.6.1"
    check(network, network.grids(**options), version, tmp_path, most, 2 if "bits" in options else 1)


def test_activations_of_16_bits(tmp_path):
    """A step is 1/256 of what it is with 8 bits; the rounding of bias and float32 may add up to some."""
    network = NETWORKS["attention"]()
    grids = network.grids(16) | {n: g for n, g in network.grids(8).items() if g.param or n == "p"}
    inputs = random_inputs(network.model, seed=9)
    (name, expected), *_ = simulated(network.model, grids, inputs).items()
    found = simulate(network.model, inputs, encodings=written(tmp_path, document("0.6.1", grids)))[name]
    assert differences(found, expected, grids[name].scale)[0] <= 1


@pytest.mark.parametrize("version", ["0.6.1", "2.0.0"])
def test_matrix_products_find_their_channels(version, tmp_path):
    network = NETWORKS["attention"]()
    check(network, network.grids(), version, tmp_path)


def test_compiled_code_is_the_reference(tmp_path):
    network = NETWORKS["cnn"](4)
    path = written(tmp_path, document("2.0.0", network.grids()))
    inputs = random_inputs(network.model, seed=9)
    (expected,) = evaluate_module(pipeline.run(imported(network.model, encodings=path)), inputs)
    found = tq.compile(network.model, encodings=path).run(inputs)["logits"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_imported_module_is_the_simulation(name, tmp_path):
    """Before any pass: float operators and fake quantization, as training ran them."""
    network = NETWORKS[name](4)
    grids = network.grids()
    path = written(tmp_path, document("0.6.1", grids))
    inputs = random_inputs(network.model, seed=3)
    (output, expected), *_ = simulated(network.model, grids, inputs).items()
    found = simulate(network.model, inputs, encodings=path)[output]
    step, share = differences(found, expected, grids[output].scale)
    assert step <= 1 and share <= 0.01
