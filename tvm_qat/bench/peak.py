"""What one core could do at most: a generated loop of nothing but the best dot instruction.

Its operands stay in registers and its sums are independent, so that neither memory nor latency
limits it. The figure is a yardstick for kernels, not a promise: a kernel also loads and stores.
Padding taps that a convolution skips count as its work, so it can come out above the yardstick.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.builder import buffer, registers, tb
from tvm_qat.package.target import host_features, parse_target

_ROUNDS = 200_000
_TRIES = 5


@dataclass(frozen=True)
class Dot:
    """lanes : int32 sums of a vector, each of `depth` products of bytes. sums : kept in registers."""

    name: str
    feature: str
    lanes: int
    depth: int
    data: str
    sums: int
    intrinsic: str


DOTS = (
    Dot("vpdpbusd zmm", "avx512vnni", 16, 4, "uint8", 16, "llvm.x86.avx512.vpdpbusd.512"),
    Dot("vpdpbusd ymm", "avxvnni", 8, 4, "uint8", 12, "llvm.x86.avx512.vpdpbusd.256"),
    Dot("smmla", "i8mm", 4, 8, "int8", 16, "llvm.aarch64.neon.smmla.v4i32.v16i8"),
    Dot("sdot", "dotprod", 4, 4, "int8", 16, "llvm.aarch64.neon.sdot.v4i32.v16i8"),
)
"""The fastest first. smmla: 32 multiply-accumulates a vector, 8 for each of its 4 sums."""


def measured_peak() -> tuple[str, float]:
    """(instruction, GOPS of one core, two operations for a multiply-accumulate).

    ("", 0.0) on a machine that has none of DOTS: a rate without a yardstick is then all there is.
    """
    features = host_features()
    dot = next((dot for dot in DOTS if dot.feature in features), None)
    if dot is None:
        return "", 0.0
    module = tvm.compile(IRModule({"peak": loop_of(dot)}), parse_target("native"))
    width = dot.lanes * 4
    data = tvm.runtime.tensor(np.ones(width, dot.data))
    weight = tvm.runtime.tensor(np.ones(width, "int8"))
    sums = tvm.runtime.tensor(np.zeros(dot.sums * dot.lanes, "int32"))
    seconds = min(_seconds(module["peak"], (data, weight, sums)) for _ in range(_TRIES))
    return dot.name, 2e-9 * _ROUNDS * dot.sums * dot.lanes * dot.depth / seconds


def loop_of(dot: Dot) -> Any:
    """A PrimFunc peak(data, weight, sums): _ROUNDS times `sums` additions."""
    from tvm.script.ir_builder import IRBuilder

    width = dot.lanes * 4
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True):
            tb.func_name("peak")
            tb.func_attr({"global_symbol": "peak", "tirx.noalias": True, "tirx.is_scheduled": True})
            data = tb.arg("data", buffer((width,), dot.data))
            weight = tb.arg("weight", buffer((width,), "int8"))
            out = tb.arg("sums", buffer((dot.sums * dot.lanes,), "int32"))
            _body(dot, data, weight, out)
    return builder.get()


def _body(dot: Dot, data: Any, weight: Any, out: Any) -> None:
    tir, width = tvm.tirx, dot.lanes * 4
    sums = registers(dot.sums, f"int32x{dot.lanes}")
    for i in range(dot.sums):
        tb.buffer_store(sums, tir.Broadcast(tir.const(i, "int32"), dot.lanes), [i])
    with tb.serial(0, _ROUNDS):
        for i in range(dot.sums):
            operands = (data.vload([0], f"{dot.data}x{width}"), weight.vload([0], f"int8x{width}"))
            added = tir.call_llvm_pure_intrin(f"int32x{dot.lanes}", dot.intrinsic, sums[i], *operands)
            tb.buffer_store(sums, added, [i])
    for i in range(dot.sums):
        tb.buffer_store(out, sums[i], [tir.Ramp(i * dot.lanes, 1, dot.lanes)])


def _seconds(function: Any, arguments: tuple[Any, ...]) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin
