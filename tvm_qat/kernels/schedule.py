"""Loop schedules for what TVM generates itself: float islands, data movement, max_pool.

TVM's CPU pipeline schedules nothing. Here each block gets its outer spatial loops in parallel and
its innermost spatial loop vectorized. Reductions keep their order (so their bits are the same on
every target): only the spatial loop that moves inside of them changes place.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.loops import plain, worth_threads

_SPATIAL, _REDUCTION = 0, 2
_WIDTHS = (16, 8, 4)


@tvm.transform.module_pass(opt_level=0, name="ScheduleOnCPU")
class ScheduleOnCPU:
    """Schedules the PrimFuncs that no kernel template made."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tvm.tirx.PrimFunc) and "tirx.is_scheduled" not in (func.attrs or {}):
                out[gvar] = schedule(func)
        return out


def schedule(func: Any) -> Any:
    """The same function with its loops rearranged.

    Functions without blocks are kept (sort, scatter), and so are blocks that the scheduler refuses
    to touch, such as two writers of one buffer.
    """
    if not isinstance(func.body, tvm.s_tir.SBlockRealize) or func.body.block.name_hint != "root":
        return func
    plan = tvm.s_tir.Schedule(func, error_render_level="none")
    root = plan.get_sblock("root")
    inline_blocks(plan, root)
    for block in plan.get_child_blocks(root):
        if is_regular(plan, block):
            with suppress(tvm.s_tir.ScheduleError):
                _arrange(plan, block)
    return plan.mod["main"].with_attr("tirx.is_scheduled", True)


def inline_blocks(plan: Any, root: Any, *, reshaped: bool = False) -> None:
    """Elementwise blocks move into their only consumer where nothing is computed twice.

    reshaped : into one of another shape, too: what it reads several times is computed as often.
    """
    for block in plan.get_child_blocks(root):
        consumers = plan.get_consumers(block)
        if len(consumers) != 1 or not is_regular(plan, block) or not is_regular(plan, consumers[0]):
            continue
        spatial = _reductions(plan, block) == 0 == _reductions(plan, consumers[0])
        alike = reshaped or _domain(plan, consumers[0]) == _domain(plan, block)
        if spatial and alike and _single_store(plan, block):
            with suppress(tvm.s_tir.ScheduleError):
                plan.compute_inline(block)


def _single_store(plan: Any, block: Any) -> bool:
    body = plan.get(block).body
    return isinstance(body, tvm.tirx.BufferStore) and len(plan.get(block).writes) == 1


def _domain(plan: Any, block: Any) -> list[str]:
    return [str(v.dom.extent) for v in plan.get(block).iter_vars if str(v.dom.extent) != "1"]


def _reductions(plan: Any, block: Any) -> int:
    return sum(int(v.iter_type) == _REDUCTION for v in plan.get(block).iter_vars)


def is_regular(plan: Any, block: Any) -> bool:
    """Whether a block is one loop per axis, each spatial or a reduction, with nothing nested."""
    axes = plan.get(block).iter_vars
    kinds = {int(v.iter_type) for v in axes}
    return kinds <= {_SPATIAL, _REDUCTION} and len(plan.get_loops(block)) == len(axes) and bool(axes)


def spatial_loops(plan: Any, block: Any) -> list[Any]:
    """Those of a regular block, from the outermost on."""
    return _loops_of_kind(plan, block, _SPATIAL)


def _loops_of_kind(plan: Any, block: Any, wanted: int) -> list[Any]:
    axes = [int(v.iter_type) for v in plan.get(block).iter_vars]
    return [loop for loop, kind in zip(plan.get_loops(block), axes, strict=True) if kind == wanted]


def _arrange(plan: Any, block: Any) -> None:
    loops, spatial = plan.get_loops(block), spatial_loops(plan, block)
    reduced = _loops_of_kind(plan, block, _REDUCTION)
    if not spatial:
        return
    parallel = worth_threads([plain(plan.get(loop).extent) for loop in loops])
    *outer, inner = spatial
    inner_outer, lanes = _split_lanes(plan, inner)
    outer = [*outer, *inner_outer]
    if reduced:
        plan.reorder(*outer, *reduced, *lanes)
    if outer:
        fused = plan.fuse(*outer) if len(outer) > 1 else outer[0]
        if parallel:
            plan.parallel(fused)
    for loop in lanes:
        plan.vectorize(loop)
    if reduced:
        # Only now: a decomposed reduction may not be parallelized any more.
        init = plan.decompose_reduction(block, reduced[0])
        if lanes:
            plan.vectorize(plan.get_loops(init)[-1])


def _split_lanes(plan: Any, loop: Any) -> tuple[list[Any], list[Any]]:
    """(outer part, vector part) of the innermost spatial loop; no vector part where none fits."""
    extent = plan.get(loop).extent
    if not isinstance(extent, tvm.tirx.IntImm):
        return [loop], []
    length = int(extent)
    if 1 < length <= _WIDTHS[0]:
        return [], [loop]
    for width in _WIDTHS:
        if length % width == 0:
            outer, inner = plan.split(loop, [None, width])
            return [outer], [inner]
    return [loop], []
