"""The PyTorch importer.

archive     a .pt2 file -> torch.export.ExportedProgram, checked before torch reads it
live        a module after prepare_qat -> torch.export.ExportedProgram
program     the walk over an exported program: constants computed, node names kept
inputs liveness schema constants     what the walk asks of the program
node        one call of an operator, operands by the argument names of its schema
table       operator -> converter
aten/       converters of float operators, by family
quant grids converters of quantization operators
chains      calls that write fake quantization out, which are not computed
encoded     names of a program's tensors, for encodings laid onto a float model
pt script*  TorchScript, and whatever else a .pt or .pth file holds
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm_qat.importers.options import ImportOptions, require
from tvm_qat.ir import IRModule


def import_torch(source: Any, options: ImportOptions) -> IRModule:
    """source: a path or bytes of torch.export.save's, an ExportedProgram, an nn.Module (input_shapes
    needed), or a pair (nn.Module, example inputs)."""
    file = source.name if isinstance(source, Path) else "model"
    require("torch", "torch", file=file)
    from tvm_qat.importers.torch.archive import load_archive
    from tvm_qat.importers.torch.live import exported
    from tvm_qat.importers.torch.program import translate

    if isinstance(source, Path | bytes):
        data = source.read_bytes() if isinstance(source, Path) else source
        return translate(load_archive(data, file, options.trust), file, options)
    if isinstance(source, tuple):
        return translate(exported(source[0], source[1], {}, file), file, options)
    if hasattr(source, "graph_signature"):
        return translate(source, file, options)
    program = exported(source, None, options.input_shapes, file)
    return translate(program, file, replace(options, input_shapes={}))
