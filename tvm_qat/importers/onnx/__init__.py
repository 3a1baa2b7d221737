"""The ONNX importer.

load      bytes -> ModelProto, external data, model-local functions inlined
check     what must hold before anything is translated
inputs    graph inputs -> parameters
graph     the walk: node by node, constants folded, source names kept
table     (domain, operator) -> converter
chains      nodes that write fake quantization out, which are not folded
batch_norm  folded in a float model before its encodings are laid
encoded   names, channel axes and gaps, for encodings laid onto a float model
qdq qoperator microsoft dynamic qonnx horizon    quantization
conv pool floats stock                   everything else
"""

from __future__ import annotations

from typing import Any

from tvm_qat.importers.encodings import read_encodings
from tvm_qat.importers.onnx.batch_norm import fold_batch_norms
from tvm_qat.importers.onnx.check import checked
from tvm_qat.importers.onnx.encoded import tensor_names
from tvm_qat.importers.onnx.graph import translate
from tvm_qat.importers.onnx.load import load
from tvm_qat.importers.options import ImportOptions
from tvm_qat.ir import IRModule


def import_onnx(source: Any, options: ImportOptions) -> IRModule:
    """source: a path, bytes or an onnx.ModelProto."""
    overlay = read_encodings(options.encodings)
    model = fold_batch_norms(checked(load(source)), overlay)
    overlay.check_names(tensor_names(model))
    return translate(model, options.input_shapes, overlay)
