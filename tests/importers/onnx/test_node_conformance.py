"""The quantization cases of the ONNX backend node tests."""

from __future__ import annotations

import functools
import importlib
import re
import warnings

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

import tvm_qat
from tests.support.run import imported
from tvm_qat.errors import UnsupportedError
from tvm_qat.verification.evaluate import evaluate_module

NAMES = "quantizelinear|qlinear|convinteger|matmulinteger"

REFUSED = {
    "test_quantizelinear_e4m3fn": "FLOAT8E4M3FN are not supported",
    "test_quantizelinear_e5m2": "FLOAT8E5M2 are not supported",
    "test_quantizelinear_float4e2m1": "FLOAT4E2M1 are not supported",
}


FILES = (
    "convinteger", "dequantizelinear", "dynamicquantizelinear", "matmulinteger", "qlinearconv",
    "qlinearmatmul", "quantizelinear",
)  # fmt: skip
"""Of onnx.backend.test.case.node: asking for all of its cases computes them all, for seconds."""


@functools.cache
def cases():
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in FILES:
            importlib.import_module(f"{node.__name__}.{file}")
    found = [case for case in node._NodeTestCases if re.search(NAMES, case.name)]
    return {case.name: case for case in found}


def stored(value):
    """As the importer stores it: narrow integers widened, small floats as their bits."""
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if array.dtype.name.startswith(("float8", "float4")):
        return array.view(np.uint8)
    narrow = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}
    return array.astype(narrow.get(array.dtype.name, array.dtype))


def test_there_are_forty_five_and_three_are_refused():
    assert len(cases()) == 45
    assert set(REFUSED) < set(cases())


WITHOUT_KERNEL = {"test_convinteger_with_padding": "computed at run time must be a scalar"}
"""Its weight is an input, with a zero point per channel that is an input as well."""


@pytest.mark.parametrize("name", sorted(set(cases()) - set(REFUSED)))
def test_case_compiled(name):
    case = cases()[name]
    if name in WITHOUT_KERNEL:
        with pytest.raises(UnsupportedError, match=WITHOUT_KERNEL[name]):
            tvm_qat.compile(imported(case.model), "native")
        return
    package = tvm_qat.compile(imported(case.model), "native")
    for inputs, outputs in case.data_sets:
        found = package.run([stored(value) for value in inputs])
        for have, value in zip(found.values(), outputs, strict=True):
            np.testing.assert_array_equal(have, stored(value))


@pytest.mark.parametrize("name", sorted(cases()))
def test_case(name):
    case = cases()[name]
    if name in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[name]):
            imported(case.model)
        return
    mod = imported(case.model)
    for inputs, outputs in case.data_sets:
        found = evaluate_module(mod, [stored(value) for value in inputs])
        for have, value in zip(found, outputs, strict=True):
            want = stored(value)
            assert have.dtype == want.dtype and have.shape == want.shape
            np.testing.assert_array_equal(have, want)
