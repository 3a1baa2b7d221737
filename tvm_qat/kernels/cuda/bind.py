"""Threads for what TVM generates itself: a thread for each element of each block."""

from __future__ import annotations

from typing import Any

import tvm_ffi

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import IRModule, is_graph, tvm
from tvm_qat.kernels.cuda.threads import THREADS
from tvm_qat.kernels.schedule import inline_blocks, is_regular, spatial_loops
from tvm_qat.kernels.sources import SOURCES


@tvm.transform.module_pass(opt_level=0, name="ScheduleOnCUDA")
class ScheduleOnCUDA:
    """Schedules the PrimFuncs that no kernel template made; UnsupportedError where one has no form of it."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if not is_graph(func) and "tirx.is_scheduled" not in (func.attrs or {}):
                out[gvar] = schedule(func, gvar.name_hint)
        return out


def schedule(func: Any, name: str) -> Any:
    """The same function with its loops spread over threads; reductions keep their order."""
    nodes = ", ".join(map(str, (func.attrs or {}).get(SOURCES, []))) or name
    if not isinstance(func.body, tvm.s_tir.SBlockRealize) or func.body.block.name_hint != "root":
        raise _refused(nodes, "what TVM makes of it has no form for a GPU")
    plan = tvm.s_tir.Schedule(func, error_render_level="none")
    root = plan.get_sblock("root")
    inline_blocks(plan, root, reshaped=True)
    for block in plan.get_child_blocks(root):
        every = plan.get_loops(block)
        if every and not is_regular(plan, block):
            raise _refused(nodes, "what TVM makes of it has no form for a GPU")
        loops = spatial_loops(plan, block) if every else []
        # Around all loops, or the host would call a kernel for each step of a reduction.
        whole = plan.fuse(*loops) if loops else plan.add_unit_loop(every[0] if every else block)
        outer, inner = plan.split(whole, [None, THREADS])
        plan.bind(outer, "blockIdx.x")
        plan.bind(inner, "threadIdx.x")
    made = plan.mod["main"].with_attr("tirx.is_scheduled", True)
    return made.with_body(tvm_ffi.structural_map(made.body, (tvm.tirx.For, _unless_empty)))


def _unless_empty(loop: Any) -> Any:
    """A GPU refuses to launch nothing."""
    binding = loop.thread_binding
    known = isinstance(loop.extent, tvm.tirx.IntImm) and int(loop.extent) > 0
    if binding is None or str(binding.thread_tag) != "blockIdx.x" or known:
        return loop
    return tvm.tirx.IfThenElse(loop.extent > 0, loop, None)


def _refused(nodes: str, reason: str) -> UnsupportedError:
    return UnsupportedError(located(reason, node=nodes, remedy="compile for an llvm target"))
