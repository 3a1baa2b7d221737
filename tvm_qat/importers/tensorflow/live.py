"""Keras models and functions of this process; their variables are read where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tensorflow.model import Array, Graph, Model, by_name

FILE = "model"
_REMEDY = "give tf.function(...).get_concrete_function(...) with a TensorSpec for each input"


def load_live(source: Any) -> Model:
    """source: a built Keras model, a ConcreteFunction, or a tf.function with an input signature."""
    if hasattr(source, "layers") and callable(source):
        return _keras(source)
    if hasattr(source, "get_concrete_function"):
        source = _concrete(source)
    if not hasattr(source, "structured_input_signature"):
        kind = type(source).__name__
        raise UnsupportedError(located(f"an object of type {kind} is no model", remedy=_REMEDY))
    return _function(source, list(_names(source.structured_outputs, len(source.outputs))))


def _concrete(function: Any) -> Any:
    try:
        return function.get_concrete_function()
    except (TypeError, ValueError):
        raise InputError(located("the function has no input signature", remedy=_REMEDY)) from None


def _keras(model: Any) -> Model:
    """Called as for inference: dropout off, moving statistics of normalization and quantizers used."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise InputError(located("the Keras model has no fixed inputs yet", file=FILE, remedy=_REMEDY))
    specs = [tf.TensorSpec(value.shape, value.dtype, name=value.name.partition(":")[0]) for value in inputs]

    def call(*values: Any) -> Any:
        return model(tf.nest.pack_sequence_as(model.input, values), training=False)

    function = tf.function(call).get_concrete_function(*specs)
    names = list(getattr(model, "output_names", ()))
    count = len(function.outputs)
    return _function(function, names if len(names) == count else list(_names(None, count)))


def _names(structure: Any, count: int) -> tuple[str, ...]:
    """Keys of a dictionary of outputs, in TensorFlow's order (sorted); else numbered."""
    if isinstance(structure, dict) and len(structure) == count:
        return tuple(str(key) for key in sorted(structure))
    return tuple(f"output_{i}" for i in range(count))


def _function(function: Any, names: list[str]) -> Model:
    definition = function.graph.as_graph_def()
    captured = dict(
        zip(
            (placeholder.op.name for placeholder in function.graph.internal_captures),
            function.captured_inputs,
            strict=True,
        )
    )
    handles = {id(variable.handle): variable for variable in function.graph.variables}

    def value_of(name: str) -> Array:
        if name not in captured:
            raise InputError(f"variable {name!r} belongs to another graph")
        tensor = captured[name]
        return np.asarray(handles.get(id(tensor), tensor))

    free = [tensor for tensor in function.inputs if tensor.op.name not in captured]
    functions = {entry.signature.name: entry for entry in definition.library.function}
    return Model(
        Graph(by_name(definition.node, FILE)),
        functions,
        {tensor.op.name: tensor.name for tensor in free},
        {name: tensor.name for name, tensor in zip(names, function.outputs, strict=True)},
        value_of,
        FILE,
    )
