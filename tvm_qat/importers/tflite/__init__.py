"""The TFLite importer.

load tensors  bytes -> Model, everything in the file checked
model         what a Model is
graph         the walk: operator by operator, stored values by tensor
node          one operator as a converter sees it: operands in real numbers or as stored
table         operator -> converter
linear pool elementwise reduce movement resize quantize          converters by family
state         variables: extra inputs and outputs of `main`

Tensors travel as they are stored. An operator on quantized tensors becomes dequantize, the float
operator in the model's own layout (NHWC), quantize; one that only moves elements moves the
integers. A fused activation narrows the range of the quantize.
"""

from __future__ import annotations

from typing import Any

from tvm_qat.importers.options import ImportOptions, refuse_encodings, require
from tvm_qat.ir import IRModule


def import_tflite(source: Any, options: ImportOptions) -> IRModule:
    """source: a path, or a file's bytes."""
    refuse_encodings(options, "the TFLite importer")
    require("tflite", "tflite")
    from tvm_qat.importers.tflite.graph import translate
    from tvm_qat.importers.tflite.load import load

    return translate(load(source), options)
