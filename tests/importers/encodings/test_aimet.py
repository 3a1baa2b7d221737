"""Networks that AIMET itself trained and exported (`make_data.py`), against its own simulation."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.encodings.make_data import DATA, KINDS, inputs
from tests.support.run import imported, simulate
from tvm_qat import pipeline
from tvm_qat.report import report_of
from tvm_qat.verification.evaluate import evaluate_module

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")


def steps(found, expected, model, path):
    entries = tq.export_qparams(model, encodings=path)["encodings"]
    (scale,) = (entry["y_scale"] for entry in entries if entry["name"] == "logits")
    return np.rint(np.abs(found - expected) / np.float32(scale))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_version_of_an_export_is_the_trained_network(kind, version):
    """Imported: to the bit what AIMET simulates. Folded: one step, where the bias is rounded too."""
    model, path = DATA / f"{kind}.onnx", DATA / f"{kind}_{version}.encodings"
    expected = np.load(DATA / f"{kind}.npy")
    found = simulate(model, {"image": inputs()}, encodings=path)["logits"]
    assert (steps(found, expected, model, path) > 0).mean() <= 0.01
    mod = imported(model, encodings=path)
    folded = pipeline.run(mod)
    (found,) = evaluate_module(folded, [inputs()])
    differences = steps(found, expected, model, path)
    assert differences.max() <= 1 and (differences > 0).mean() <= 0.05
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    totals = report_of(folded, mod).totals
    assert totals["int8_mac_share"] == 1.0 and totals["float_operators"] == 0


def test_an_export_compiles():
    model, path = DATA / "learned.onnx", DATA / "learned_2.0.0.encodings"
    found = tq.compile(model, encodings=path).run({"image": inputs()})["logits"]
    expected = np.load(DATA / "learned.npy")
    assert steps(found, expected, model, path).max() <= 1
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_all_versions_of_an_export_say_the_same(kind):
    model = DATA / f"{kind}.onnx"
    exported = [
        tq.export_qparams(model, encodings=DATA / f"{kind}_{version}.encodings") for version in VERSIONS
    ]
    assert exported[0] == exported[1] == exported[2]
