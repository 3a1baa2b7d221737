"""The ONNX importer.

load      bytes -> ModelProto, external data, model-local functions inlined
check     what must hold before anything is translated
inputs    graph inputs -> parameters
graph     the walk: node by node, constants folded, source names kept
table     (domain, operator) -> converter
chains      nodes that write fake quantization out, which are not folded
qdq qoperator microsoft dynamic qonnx horizon    quantization
conv pool floats stock                   everything else
"""

from __future__ import annotations

from typing import Any

from tvm_qat.importers.onnx.check import checked
from tvm_qat.importers.onnx.graph import translate
from tvm_qat.importers.onnx.load import load
from tvm_qat.importers.options import ImportOptions, refuse_encodings
from tvm_qat.ir import IRModule


def import_onnx(source: Any, options: ImportOptions) -> IRModule:
    """source: a path, bytes or an onnx.ModelProto."""
    refuse_encodings(options, "this importer")
    return translate(checked(load(source)), options.input_shapes)
