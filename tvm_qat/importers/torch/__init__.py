"""The PyTorch importer.

load      a path or an object -> torch.export.ExportedProgram
program   the walk over an exported program: constants computed, node names kept
node      one call of an operator, operands by the argument names of its schema
table     operator -> converter
aten/     converters of float operators, by family
quant     converters of quantization operators
"""

from __future__ import annotations
