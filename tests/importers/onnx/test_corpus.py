"""Real models: the imported module reproduces the reference vectors of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.corpus import needs_corpus, one_of_each_folder, onnx_models, vectors
from tests.support.run import imported, simulate
from tvm_qat.ir import bindings_of, op_name, source_of

pytestmark = [needs_corpus, pytest.mark.corpus]

ROUNDED_DIFFERENTLY = {
    "qdq_with_multi_consumer_dq_nodes.onnx": {
        "MobilenetEdgeTPU/expanded_conv_4/add": 0.7083,
        "MobilenetEdgeTPU/expanded_conv_3/add_DequantizeLinear": 0.3718,
    }
}
"""Models with values that lie so near a tie that the order of a float sum decides; the largest
difference allowed is one step of the tensor (of both summands, where the output is a float sum)."""


@pytest.mark.parametrize("path", one_of_each_folder(onnx_models()))
def test_vectors_are_reproduced(path):
    inputs, outputs = vectors(path)
    found = simulate(path, inputs)
    assert set(outputs) <= set(found)
    for name, expected in outputs.items():
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
        limit = ROUNDED_DIFFERENTLY.get(path.name, {}).get(name)
        distance = np.abs(found[name].astype(np.float64) - expected.astype(np.float64))
        assert distance.max() <= (1e-5 if limit is None else limit)
        if limit is not None:
            assert np.mean(distance > 1e-5) < 0.002


@pytest.mark.parametrize("path", onnx_models(), ids=lambda path: path.stem)
def test_every_call_knows_its_node(path):
    func = imported(path)["main"]
    nameless = [b.var.name for b in bindings_of(func) if op_name(b.value) and source_of(b.value) is None]
    assert nameless == []
