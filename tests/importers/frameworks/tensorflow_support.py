"""TensorFlow for tests: imported once, its own deprecation warnings aside."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import tvm_qat as tq
from tvm_qat.ir import relax
from tvm_qat.verification.evaluate import evaluate_module

for name, value in {
    "TF_USE_LEGACY_KERAS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",
}.items():
    os.environ.setdefault(name, value)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

FAKE_QUANTS = ("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")


def spec(*shape: int | None, dtype: str = "float32", name: str = "x") -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def function(body: Callable[..., Any], *specs: Any) -> Any:
    return tf.function(body, autograph=False).get_concrete_function(*specs)


def frozen_graph(concrete: Any) -> Any:
    """GraphDef with constants for variables and without functions."""
    return convert_variables_to_constants_v2(concrete).graph.as_graph_def()


def evaluated(source: Any, inputs: Mapping[str, np.ndarray], **options: Any) -> list[np.ndarray]:
    mod = tq.import_model(source, **options)
    relax.analysis.well_formed(mod)
    return evaluate_module(mod, inputs)


def layers_of(graph: Any) -> list[str]:
    """Names of the fake quantizations of activations: their data depends on an input."""
    depends: set[str] = set()
    found = []
    for node in graph.node:
        sources = [name.partition(":")[0] for name in node.input]
        if node.op == "Placeholder" or any(name in depends for name in sources):
            depends.add(node.name)
            if node.op in FAKE_QUANTS:
                found.append(node.name)
    return found


def layer_values(graph: Any, layers: list[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The results of these nodes, computed by TensorFlow."""
    names = [node.name for node in graph.node if node.op == "Placeholder"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        pruned = wrapped.prune([f"{name}:0" for name in names], [f"{name}:0" for name in layers])
    values = pruned(*[tf.constant(inputs[name]) for name in names])
    return {name: value.numpy() for name, value in zip(layers, values, strict=True)}


__all__ = [
    "evaluated",
    "frozen_graph",
    "function",
    "keras",
    "layer_values",
    "layers_of",
    "spec",
    "tf",
    "tfmot",
]  # fmt: skip
