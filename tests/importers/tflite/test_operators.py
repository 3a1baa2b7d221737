"""Each operator alone: the folded module against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.importers.tflite.cases import CASES
from tests.support.tflite_models import litert
from tvm_qat import pipeline
from tvm_qat.importers import import_model
from tvm_qat.ir import bindings_of, dtype_of, op_name, relax, source_of, static_shape
from tvm_qat.verification.evaluate import evaluate_module


def _inputs(mod) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = []
    for param in mod["main"].params:
        shape, dtype = static_shape(param), dtype_of(param)
        if dtype == "float32":
            arrays.append((4 * generator.standard_normal(shape)).astype(dtype))
        else:
            info = np.iinfo(dtype)
            arrays.append(generator.integers(info.min, info.max, shape, dtype=dtype, endpoint=True))
    return arrays


@pytest.mark.parametrize(("content", "steps"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_it_repeats_litert(content, steps):
    mod = import_model(content)
    relax.analysis.well_formed(mod)
    nameless = [b for b in bindings_of(mod["main"]) if op_name(b.value) and source_of(b.value) is None]
    assert nameless == []
    arrays = _inputs(mod)
    expected, found = litert(content, arrays), evaluate_module(pipeline.run(mod), arrays)
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        assert have.dtype == want.dtype and have.shape == want.shape
        assert np.abs(have.astype(np.float64) - want.astype(np.float64)).max() <= steps
