"""Sorting on a GPU: each element counts those that come before it, which is its place.

Quadratic in the length of the axis, which is that of classes or scores. Elements of equal value keep
their order and NaN come last, so that places are a permutation whatever the values are. TVM's own
sorting for GPUs needs Thrust, or functions of float64 that differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm_qat.ir import BlockBuilder, Call, Expr, Function, IRModule, Var, attrs_of, op_name, rewrite, tvm
from tvm_qat.kernels import expressions as ex

_te, _tir = tvm.te, tvm.tirx


@tvm.transform.module_pass(opt_level=0, name="SortOnCUDA")
class SortOnCUDA:
    """relax.sort, relax.argsort and relax.topk as calls of PrimFuncs, which `bind` spreads over threads."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        def make_visit(_func: Function) -> Any:
            def visit(builder: BlockBuilder, _var: Var, value: Expr) -> Expr | None:
                name = op_name(value) if isinstance(value, Call) else ""
                if name not in _FORMS:
                    return None
                hint = name.removeprefix("relax.")
                call_te: Any = builder.call_te
                return call_te(_FORMS[name], value.args[0], attrs_of(value), primfunc_name_hint=hint)

            return visit

        return rewrite(mod, make_visit)


def _sort(x: Any, attrs: dict[str, Any]) -> Any:
    axis = int(attrs["axis"]) % len(x.shape)
    return _values(x, axis, _indices(x, axis, x.shape[axis], bool(attrs["descending"])))


def _argsort(x: Any, attrs: dict[str, Any]) -> Any:
    axis = int(attrs["axis"]) % len(x.shape)
    return _as(_indices(x, axis, x.shape[axis], bool(attrs["descending"])), str(attrs["dtype"]))


def _topk(x: Any, attrs: dict[str, Any]) -> Any:
    axis, count = int(attrs["axis"]) % len(x.shape), int(attrs["k"])
    found = _indices(x, axis, count if count > 0 else x.shape[axis], bool(attrs["largest"]))
    wanted, made = str(attrs["ret_type"]), []
    if wanted != "indices":
        made.append(_values(x, axis, found))
    if wanted != "values":
        made.append(_as(found, str(attrs["dtype"])))
    return made if wanted == "both" else made[0]


_FORMS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "relax.sort": _sort,
    "relax.argsort": _argsort,
    "relax.topk": _topk,
}


def _indices(x: Any, axis: int, count: Any, descending: bool) -> Any:
    """int32: for each of the first `count` places, where its element is."""
    length = x.shape[axis]
    j, i = _te.reduce_axis((0, length), "j"), _te.reduce_axis((0, length), "i")

    def place(*at: Any) -> Any:
        mine, other = x(*at), x(*_moved(at, axis, j))
        first = _tir.any(_before(other, mine, descending), _tir.all(_equal(other, mine), j < at[axis]))
        return _te.sum(_tir.Select(first, 1, 0), axis=j)

    places = _te.compute(x.shape, place, name="places")

    def index(*at: Any) -> Any:
        is_here = _tir.EQ(_tir.Cast(str(at[axis].ty.dtype), places[_moved(at, axis, i)]), at[axis])
        return _te.sum(_tir.Select(is_here, _tir.Cast("int32", i.var), 0), axis=i)

    shape = [*x.shape[:axis], count, *x.shape[axis + 1 :]]
    return _te.compute(shape, index, name="indices")


def _before(x: Any, y: Any, descending: bool) -> Any:
    sooner = x > y if descending else x < y
    return _tir.any(sooner, _tir.all(_is_nan(y), _tir.Not(_is_nan(x)))) if _is_float(x) else sooner


def _equal(x: Any, y: Any) -> Any:
    """Written out: of not x > y TVM makes x <= y."""
    same = _tir.EQ(x, y)
    return _tir.any(same, _tir.all(_is_nan(x), _is_nan(y))) if _is_float(x) else same


def _is_float(x: Any) -> bool:
    return str(x.ty.dtype).startswith("float")


def _is_nan(x: Any) -> Any:
    """Fenced, since TVM takes x for equal to itself."""
    return _tir.NE(x, ex.fence(x))


def _values(x: Any, axis: int, indices: Any) -> Any:
    return _te.compute(indices.shape, lambda *at: x[_moved(at, axis, indices[at])], name="values")


def _as(indices: Any, dtype: str) -> Any:
    return _te.compute(indices.shape, lambda *at: indices[at].astype(dtype), name="indices_as")


def _moved(at: Sequence[Any], axis: int, to: Any) -> tuple[Any, ...]:
    """The same place but for one axis."""
    return (*at[:axis], to, *at[axis + 1 :])
