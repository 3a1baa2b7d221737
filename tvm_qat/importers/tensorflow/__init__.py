"""The TensorFlow importer: SavedModel folders, frozen graphs (.pb), live functions and Keras models.

load        a file -> Model, by the kind of its content; nothing in it ever runs
saved       SavedModel: the chosen signature, variables read from its checkpoint
live        Keras models and ConcreteFunctions of this process
model       what all of them become: nodes, functions, inputs, outputs, variables
walk        which nodes the outputs need, in order; what has no translation
inputs      placeholders -> parameters
graph       node by node, function calls in place, constants folded
fold        what is computed from constants and shapes, in NumPy
node        one node as a converter sees it
table       operator -> converter
fake_quant conv pool elementwise reduce movement index space       the converters
"""

from __future__ import annotations

from typing import Any

from tvm_qat.importers.options import ImportOptions, refuse_encodings, require
from tvm_qat.ir import IRModule


def import_tensorflow(source: Any, options: ImportOptions) -> IRModule:
    """source: a path, bytes of a frozen graph, or a live Keras model or function."""
    require("tensorflow", "tensorflow")
    refuse_encodings(options, "this importer")
    from tvm_qat.importers.tensorflow.graph import translate
    from tvm_qat.importers.tensorflow.load import load

    return translate(load(source, options.signature), options.input_shapes)
