"""The constants of a model as an object file: bytes in its read-only data, and a function for their address.

The system maps such data from the file when it is read, a page at a time, and every process that
runs the model shares it. TVM's own constants pass through two copies on the heap instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvm.script.ir_builder import IRBuilder

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.constant_block import ADDRESS

_SECTIONS = {"darwin": "__TEXT,__const"}
_PREFIXES = {"darwin": "_"}
"""Of the symbols of C in assembly language."""

_DATA, _GET = "tvm_qat_constants_data", "tvm_qat_constants_address"


def constants_module(file: Path, target: Any, system: str) -> Any:
    """A TVM module with the function `tvm_qat_constants`, which returns where the bytes of `file` lie.

    It is an LLVM module: TVM writes it as an object or compiles it in place. The file is read then,
    not now.
    """
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True):
            tb.func_name(ADDRESS)
            tb.func_attr({"global_symbol": ADDRESS})
            with tb.attr(tvm.tirx.IntImm("int32", 0), "pragma_import_llvm", _llvm(file, system)):
                tb.add_to_parent(tvm.tirx.Return(tvm.tirx.call_extern("handle", _GET)))
    return tvm.tirx.build(tvm.IRModule({ADDRESS: builder.get()}), target=target)


def _llvm(file: Path, system: str) -> str:
    path = str(file).replace("\\", "\\\\").replace('"', '\\"')
    assembly = (
        f".section {_SECTIONS.get(system, '.rodata')}", ".balign 64",
        f"{_PREFIXES.get(system, '')}{_DATA}:", f'.incbin "{path}"', ".text",
    )  # fmt: skip
    escaped = ("".join(f"\\{byte:02X}" for byte in line.encode()) for line in assembly)
    return "\n".join(
        [
            *(f'module asm "{line}"' for line in escaped),
            f"@{_DATA} = external hidden constant i8",
            f"define ptr @{_GET}() {{ ret ptr @{_DATA} }}",
        ]
    )
