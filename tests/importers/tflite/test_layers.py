"""A network of the TFLite converter, layer by layer beside LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import interpreter

import tvm_qat as tq
from tests.support.corpus import CORPUS, needs_corpus
from tests.support.layers import check_layers, layers_of

pytestmark = [needs_corpus, pytest.mark.corpus]
COUNT = 100


def recorded(content: bytes, inputs: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The tensors of these names for every input, from LiteRT itself."""
    engine = interpreter.Interpreter(
        model_content=content, num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF,
    )  # fmt: skip
    engine.allocate_tensors()
    places = {tensor["name"]: tensor["index"] for tensor in engine.get_tensor_details()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for one in inputs:
        engine.set_tensor(engine.get_input_details()[0]["index"], one[None])
        engine.invoke()
        for name in names:
            found[name].append(engine.get_tensor(places[name]).copy())
    return {name: np.concatenate(values) for name, values in found.items()}


def test_every_layer_of_keyword_spotting():
    """To the bit under LiteRT's arithmetic. By default each layer alone is a step off at most: LiteRT rounds
    twice, first to a fraction of a step as coarse as 2^-7, so more than ties differ, and it adds up."""
    path = CORPUS / "mlperf_tiny" / "kws_ref_model.tflite"
    with np.load(CORPUS / "data" / "kws01_eembc_1000.npz") as file:
        inputs = file[file.files[0]][:COUNT].reshape(COUNT, 49, 10, 1).astype(np.int8)
    (name,) = tq.import_model(path)["main"].attrs["input_names"]
    mod = tq.import_model(path, input_shapes={str(name): inputs.shape})
    expected = recorded(path.read_bytes(), inputs, [layer.name for layer in layers_of(mod)])
    check_layers(mod, {str(name): inputs}, expected, most=0, rounding="tflite")
    check_layers(mod, {str(name): inputs}, expected, most=22, unexplained=4e-3)
