"""Runs models in tests: by the reference evaluator after import, and by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from tvm_qat.importers import import_model
from tvm_qat.ir import IRModule, relax
from tvm_qat.verification.evaluate import evaluate_module

Arrays = Mapping[str, np.ndarray]


def imported(source: ModelProto | Path | str, **options: Any) -> IRModule:
    """The module, after checking that it is well formed and one dataflow block."""
    mod = import_model(source, **options)
    relax.analysis.well_formed(mod)
    assert len(mod["main"].body.blocks) == 1
    return mod


def simulate(source: ModelProto | Path | str, inputs: Arrays, **options: Any) -> dict[str, np.ndarray]:
    """Outputs of the imported module by name, from the NumPy reference."""
    mod = imported(source, **options)
    names = [str(name) for name in mod["main"].attrs["output_names"]]
    return dict(zip(names, evaluate_module(mod, inputs), strict=True))


def onnxruntime_outputs(source: ModelProto | Path | str, inputs: Arrays) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = source.SerializeToString() if isinstance(source, ModelProto) else str(source)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def random_inputs(
    model: ModelProto, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Fresh data for every input; `sizes` gives symbolic dimensions a value (default 2)."""
    generator = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    arrays = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor_type = value.type.tensor_type
        shape = [dim.dim_value or (sizes or {}).get(dim.dim_param, 2) for dim in tensor_type.shape.dim]
        arrays[value.name] = _random(generator, shape, tensor_type.elem_type)
    return arrays


def _random(generator: np.random.Generator, shape: list[int], kind: int) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        return np.asarray(2 * generator.standard_normal(shape), dtype)
    if kind == TensorProto.BOOL:
        return np.asarray(generator.integers(0, 2, shape), bool)
    info = np.iinfo(dtype)
    low, high = max(info.min, -1000), min(info.max, 1000)
    return np.asarray(generator.integers(low, high, shape, dtype=dtype, endpoint=True))


def check_against_onnxruntime(
    model: ModelProto, *, steps: int = 0, rtol: float = 1e-5, seed: int = 0
) -> None:
    """Integer outputs differ by at most `steps`, float ones relatively by `rtol`."""
    inputs = random_inputs(model, seed)
    expected, found = onnxruntime_outputs(model, inputs), simulate(model, inputs)
    assert list(found) == list(expected)
    for name, want in expected.items():
        have = found[name]
        assert have.dtype == want.dtype, name
        assert have.shape == want.shape, name
        if np.issubdtype(want.dtype, np.integer):
            assert np.abs(have.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= steps, name
        else:
            np.testing.assert_allclose(have, want, rtol=rtol, atol=rtol, err_msg=name)
