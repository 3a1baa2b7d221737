"""The importer of Relay's text format, as TVM up to 0.19 printed it.

load       text and parameter file -> Model
lexer syntax parser numbers     text -> tree
metadata binary                 `#[metadata]` JSON, TVM's binary arrays
graph      the walk: calls of functions inlined, operators translated
table      operator -> converter
quantized linear pointwise movement reduction
"""

from __future__ import annotations

from typing import Any

from tvm_qat.importers.options import ImportOptions, refuse_encodings
from tvm_qat.importers.relay.graph import translate
from tvm_qat.importers.relay.load import load
from tvm_qat.ir import IRModule


def import_relay(source: Any, options: ImportOptions) -> IRModule:
    """source: a path, or the text (bytes or str)."""
    refuse_encodings(options, "this importer")
    return translate(load(source, options.params), options.input_shapes)
