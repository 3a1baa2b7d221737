"""Lookups in tables of 256 bytes, many at once.

    y = table[position]        ->        y = qat.entry(table[0], position)        ->        shuffles

In between, a lookup is one call that loops and vectors can be made around, as `own_functions` are;
its first operand only names the table. `ChooseLookups` says how the target does it, and TVM's last
pass, which lowers intrinsics, writes it out:

- permutations of 128 bytes (avx512vbmi): one for each half of the table, then one choice;
- shuffles of 16 bytes (avx512bw, avx2): one for each sixteenth, then choices by the upper four bits;
- one load for each element, where there is neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tvm_ffi
from tvm.ir import Op

from tvm_qat.ir import Call, IRModule, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.own_functions import register

_tir = tvm.tirx
_ENTRY = "qat.entry"
_SIXTEENTH = 16


@dataclass(frozen=True)
class Lookup:
    """How one instruction set looks up. width : bytes of its vectors.

    find(width, part, position) : int8 vector; part(start, count) loads that piece of the table,
    position is an int8 vector of whole width.
    """

    feature: str
    width: int
    find: Callable[[int, Callable[[int, int], PrimExpr], PrimExpr], PrimExpr]

    @property
    def op(self) -> str:
        return f"{_ENTRY}_{self.feature}"


def entry(table: Any, position: PrimExpr) -> PrimExpr:
    """table[position]. table : buffer of 256 elements of 8 bits. position : uint8."""
    return _tir.call_intrin(str(table.dtype), Op.get(_ENTRY), table[0], position)


def _permuted(width: int, part: Callable[[int, int], PrimExpr], position: PrimExpr) -> PrimExpr:
    dtype = f"int8x{width}"
    quarters = [part(first, width) for first in range(0, 256, width)]
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    lower, upper = (
        _tir.call_llvm_pure_intrin(dtype, name, first, position, second)
        for first, second in (quarters[:2], quarters[2:])
    )
    return _tir.Select(position < _tir.Broadcast(_tir.IntImm("int8", 0), width), upper, lower)


def _shuffled(name: str, width: int, part: Callable[[int, int], PrimExpr], position: PrimExpr) -> PrimExpr:
    """Shuffles read the lower four bits where the last one is zero, within 16 bytes."""

    def every(value: int) -> PrimExpr:
        return _tir.Broadcast(_tir.IntImm("int8", value), width)

    lower = _tir.bitwise_and(position, every(_SIXTEENTH - 1))
    found = [
        _tir.call_llvm_pure_intrin(f"int8x{width}", name, _filled(part(first, _SIXTEENTH), width), lower)
        for first in range(0, 256, _SIXTEENTH)
    ]
    for shift in (3, 2, 1, 0):
        bit = _tir.shift_left(position, every(shift)) < every(0)
        found = [_tir.Select(bit, odd, even) for even, odd in zip(found[::2], found[1::2], strict=True)]
    return found[0]


LOOKUPS = (
    Lookup("avx512vbmi", 64, _permuted),
    Lookup("avx512bw", 64, partial(_shuffled, "llvm.x86.avx512.pshuf.b.512")),
    Lookup("avx2", 32, partial(_shuffled, "llvm.x86.avx2.pshuf.b")),
)
"""Best first; a target takes the first that it has."""


@tvm.transform.module_pass(opt_level=0, name="ChooseLookups")
class ChooseLookups:
    """Lookups of every PrimFunc as `target` does them."""

    def __init__(self, target: Any) -> None:
        with target:
            has = tvm.target.codegen.llvm_cpu_has_features
            known = target.kind.name == "llvm"
            self.lookup = next((row for row in LOOKUPS if known and has(row.feature)), None)

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        if self.lookup is None:
            return mod
        op = Op.get(self.lookup.op)

        def choose(call: Any) -> Any:
            if getattr(call.op, "name", "") != _ENTRY:
                return call
            return _tir.call_intrin(str(call.ty.dtype), op, *call.args)

        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tvm.tirx.PrimFunc):
                out[gvar] = func.with_body(tvm_ffi.structural_map(func.body, (Call, choose)))
        return out


def one_load(call: Any) -> PrimExpr:
    """A lookup of one element as the load that it is."""
    return _lowered(None, call)


def _lowered(lookup: Lookup | None, call: Any) -> PrimExpr:
    first, position = call.args
    table = getattr(first, "value", first).source
    dtype, lanes = str(table.dtype), _lanes(position)
    if lookup is None or lanes == 1 or lanes > lookup.width:
        index = f"int32x{lanes}" if lanes > 1 else "int32"
        return _tir.BufferLoad(table, [ex.cast(position, index)])
    width = lookup.width

    def part(start: int, count: int) -> PrimExpr:
        loaded = _tir.BufferLoad(table, [_tir.Ramp(start, 1, count)])
        return _tir.reinterpret(f"int8x{count}", loaded)

    found = lookup.find(width, part, _tir.reinterpret(f"int8x{width}", _filled(position, width)))
    kept = _tir.Shuffle([found], [ex.int32(i) for i in range(lanes)]) if lanes < width else found
    return _tir.reinterpret(f"{dtype}x{lanes}", kept)


def _filled(vector: PrimExpr, width: int) -> PrimExpr:
    """The vector, again and again."""
    times = -(-width // _lanes(vector))
    return _tir.Shuffle([vector] * times, [ex.int32(i) for i in range(width)])


def _lanes(value: PrimExpr) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


register(_ENTRY, 2, partial(_lowered, None))
for _row in LOOKUPS:
    register(_row.op, 2, partial(_lowered, _row))
