"""The shipped Q/DQ network, layer by layer beside onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tvm_qat as tq
from tests.support.layers import check_layers, layers_of
from tests.support.run import onnxruntime_outputs

DEMO = Path(tq.__file__).parent / "data" / "demo"


@pytest.mark.parametrize("name", [pytest.param("digits_cnn", marks=pytest.mark.slow), "digits_mlp"])
def test_every_layer_is_that_of_onnxruntime_but_for_ties(name):
    """All quantized activations, as onnxruntime computes them without optimizing the graph."""
    made = onnx.load(DEMO / f"{name}.onnx")
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 100
    mod = tq.import_model(made)
    layers = layers_of(mod)
    results = {node.name: node.output[0] for node in made.graph.node}
    del made.graph.output[:]
    made.graph.output.extend(onnx.ValueInfoProto(name=results[layer.name]) for layer in layers)
    images = {"image": np.random.default_rng(0).random((100, 1, 16, 16)).astype(np.float32)}
    found = onnxruntime_outputs(made, images)
    most = 3 if name == "digits_cnn" else 1  # a residual sum of two operands a step off, and what follows
    check_layers(mod, images, {layer.name: found[results[layer.name]] for layer in layers}, most=most)
