"""TVM's moving names, and the few things every pass does with Relax.

Names of TVM's Python API change between releases; this module and `qnn.register` are the only
places that know them, so that a new pin touches two files. TVM is untyped: `Any` stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GenericConst, IRModule, SourceName, Span, make_node
from tvm.relax import (
    BlockBuilder,
    DataflowBlock,
    Function,
    MatchCast,
    ShapeExpr,
    TensorType,
    Tuple,
    TupleGetItem,
    TupleType,
    Var,
)

from tvm_qat.errors import UnsupportedError, located

Expr: TypeAlias = Any
Shape: TypeAlias = tuple[Any, ...]
"""Plain integers where a dimension is known, TVM expressions where it is symbolic."""

NOTES = "qat.notes"


def const(values: npt.ArrayLike, dtype: str | None = None, source: str | None = None) -> Expr:
    """A Relax constant. `dtype` defaults to that of `values`; source: its name in the model."""
    array = np.asarray(values) if dtype is None else np.asarray(values, dtype)
    made = relax.const(np.ascontiguousarray(array).reshape(array.shape), str(array.dtype))
    return made if source is None else GenericConst(made.value, made.ty, _span(source))


def is_const(expr: Expr) -> bool:
    return isinstance(expr, GenericConst)


def array_of(expr: Expr) -> npt.NDArray[Any]:
    """The values of a constant."""
    return np.asarray(expr.value.numpy())


def shape_of(expr: Expr) -> Shape | None:
    """The shape of a tensor-valued expression; None if not even the rank is known."""
    return shape_of_type(expr.ty)


def shape_of_type(ty: Any) -> Shape | None:
    if not isinstance(ty, TensorType) or ty.shape is None:
        return None
    if not isinstance(ty.shape, ShapeExpr):
        return None
    return tuple(int(d) if isinstance(d, tvm.tirx.IntImm) else d for d in ty.shape.values)


def same_shape(x: Shape | None, y: Shape | None) -> bool:
    """Whether two shapes are known and equal, symbolic dimensions included."""
    if x is None or y is None or len(x) != len(y):
        return False
    return all(
        a == b if isinstance(a, int) or isinstance(b, int) else bool(tvm_ffi.structural_equal(a, b))
        for a, b in zip(x, y, strict=True)
    )


def same_graph(x: Function, y: Function) -> bool:
    """Whether two functions compute the same in the same way: names of variables and nodes aside."""
    return bool(tvm_ffi.structural_equal(x, y))


def static_shape(expr: Expr) -> tuple[int, ...] | None:
    """The shape if all of it is known at compile time."""
    shape = shape_of(expr)
    return shape if shape is not None and all(isinstance(d, int) for d in shape) else None


def dtype_of(expr: Expr) -> str:
    return str(expr.ty.dtype) if isinstance(expr.ty, TensorType) else ""


def op_name(expr: Expr) -> str:
    """`relax.nn.conv2d`, or "" if `expr` is no call of an operator."""
    is_call = isinstance(expr, Call) and isinstance(expr.op, tvm.ir.Op)
    return str(expr.op.name) if is_call else ""


def attrs_of(call: Expr) -> dict[str, Any]:
    """The attributes of a call as plain Python values (lists, numbers, strings)."""
    if call.attrs is None:
        return {}
    if hasattr(call.attrs, "items"):
        return {str(k): _plain(v) for k, v in call.attrs.items()}
    fields = type(call.attrs).__tvm_ffi_type_info__.fields
    return {f.name: _plain(getattr(call.attrs, f.name)) for f in fields}


def _plain(value: Any) -> Any:
    if isinstance(value, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return value.value
    if isinstance(value, tvm.ir.Array):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, tvm.ir.Type) else value


def permutation_of(call: Expr) -> list[int]:
    """The axes of a permute_dims: axis i of its result is axis result[i] of its operand."""
    rank, axes = len(shape_of(call.args[0]) or ()), attrs_of(call)["axes"]
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]


def make_attrs(**attrs: Any) -> Any:
    return make_node("ir.DictAttrs", **attrs)


def source_of(expr: Expr) -> str | None:
    """Name of the model's node that `expr` came from."""
    span = getattr(expr, "span", None)
    return str(span.source_name.name) if span is not None else None


def _span(source: str, place: int = 0) -> Span:
    return Span(SourceName(source), place, place, 0, 0)


def place_of(expr: Expr) -> int | None:
    """What `at_place` noted."""
    return int(expr.span.line) if getattr(expr, "span", None) is not None else None


def at_place(call: Expr, place: int) -> Expr:
    """A call that remembers the number of its binding, beside the name of its node ("" if it has none)."""
    return Call(call.op, call.args, call.attrs, call.ty_args, span=_span(source_of(call) or "", place))


def with_source(expr: Expr, source: str | None) -> Expr:
    """`expr` with the source node's name attached to it and to the nameless calls nested in it."""
    if source is None or source_of(expr) is not None:
        return expr
    span = _span(source)
    if isinstance(expr, Call):
        args = [with_source(a, source) if isinstance(a, Call | Tuple) else a for a in expr.args]
        return Call(expr.op, args, expr.attrs, expr.ty_args, span=span)
    if isinstance(expr, Tuple):
        fields = [with_source(f, source) if isinstance(f, Call) else f for f in expr.fields]
        return Tuple(fields, span=span)
    if isinstance(expr, TupleGetItem):
        return TupleGetItem(expr.tuple_value, expr.index, span=span)
    return expr


def substitute(expr: Expr, env: dict[Var, Expr]) -> Expr:
    """`expr` with variables replaced. Control flow is refused: importers never make it."""
    if isinstance(expr, Var):
        return env.get(expr, expr)
    if isinstance(expr, relax.If | relax.SeqExpr | Function):
        reason = f"control flow ({type(expr).__name__}) is not supported"
        raise UnsupportedError(located(reason, node=source_of(expr)))
    return _with_operands(expr, lambda operand: substitute(operand, env))


def _with_operands(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """`expr` with each operand changed; a call whose operands stay as they are keeps its type."""
    if isinstance(expr, Call):
        args = [change(a) for a in expr.args]
        if all(new.same_as(old) for new, old in zip(args, expr.args, strict=True)):
            return expr
        return Call(expr.op, args, expr.attrs, expr.ty_args, span=expr.span)
    if isinstance(expr, Tuple):
        return Tuple([change(f) for f in expr.fields], span=expr.span)
    if isinstance(expr, TupleGetItem):
        return TupleGetItem(change(expr.tuple_value), expr.index, span=expr.span)
    return expr


def flat(builder: BlockBuilder, expr: Expr) -> Expr:
    """`expr` with the calls nested in it bound first.

    The builder would do that by itself, but then the outer call loses its source node's name.
    """
    return _with_operands(expr, lambda operand: _bound(builder, operand))


def _bound(builder: BlockBuilder, expr: Expr) -> Expr:
    inner = flat(builder, expr)
    return builder.emit(inner) if isinstance(inner, Call | TupleGetItem) else inner


Visit: TypeAlias = Callable[[BlockBuilder, Var, Expr], Expr | None]
"""(builder, the old variable, its value with operands already rewritten) -> new value or None."""


def rewrite_function(func: Function, visit: Visit, builder: BlockBuilder) -> Expr:
    """Rebuild the body of `func`, binding by binding; a None from `visit` keeps the binding."""
    env: dict[Var, Expr] = {}
    for binding in bindings_of(func):
        new = _rewritten(builder, binding, env, visit)
        if binding.var.same_as(func.body.body):
            return builder.emit_output(new, binding.var.name)
        env[binding.var] = new if _is_atom(new) else builder.emit(new, binding.var.name)
    return builder.emit_output(substitute(func.body.body, env))


def _rewritten(builder: BlockBuilder, binding: Any, env: dict[Var, Expr], visit: Visit) -> Expr:
    # A call with new operands has no type until it is normalized; visitors ask for types.
    value = builder.normalize(substitute(binding.value, env))
    if isinstance(binding, MatchCast):
        return match_again(builder, binding, value)
    new = visit(builder, binding.var, value)
    return flat(builder, with_source(value if new is None else new, source_of(binding.value)))


def match_again(builder: BlockBuilder, binding: Any, value: Expr) -> Expr:
    """The same match_cast of another value: it may define symbolic dimensions that others use."""
    return builder.match_cast(value, binding.ty, binding.var.name)


def _attrs(func: Function) -> dict[str, Any] | None:
    return dict(func.attrs.items()) if func.attrs is not None else None


def _is_atom(expr: Expr) -> bool:
    return isinstance(expr, Var) or is_const(expr)


def bindings_of(func: Function) -> Iterator[Any]:
    """All bindings of a straight-line function, in order."""
    for block in func.body.blocks:
        yield from block.bindings


def rewrite(mod: IRModule, make_visit: Callable[[Function], Visit]) -> IRModule:
    """Rebuild every graph-level function of `mod`; a simple pass is a `make_visit`.

    `make_visit` gets the function (to look at it as a whole) and returns the visitor.
    """
    return rebuild(mod, lambda func, builder: rewrite_function(func, make_visit(func), builder))


def rebuild(mod: IRModule, make_body: Callable[[Function, BlockBuilder], Expr]) -> IRModule:
    """A module whose graph-level functions have new bodies.

    `make_body` emits bindings into an open dataflow block and returns its output variable.
    Functions that a later stage already owns (composite ones, PrimFuncs) are kept as they are;
    bindings that nothing uses are removed.
    """
    builder = BlockBuilder()
    kept = {}
    for gvar, func in mod.functions_items():
        if not is_graph(func):
            kept[gvar] = func
            continue
        private = func.attrs is None or "global_symbol" not in func.attrs
        params = list(func.params)
        body = partial(make_body, func, builder)
        define(builder, gvar.name_hint, params, body, attrs=_attrs(func), private=private)
    # calls refer to the very objects that name the functions, so these are kept
    old = {gvar.name_hint: gvar for gvar in mod.get_global_vars() if gvar not in kept}
    built = {old.get(gvar.name_hint, gvar): func for gvar, func in builder.get().functions_items()}
    return drop_dead(IRModule(built | kept, attrs=mod.attrs))


def define(
    builder: BlockBuilder, name: str, params: Sequence[Var], body: Callable[[], Expr], *,
    attrs: dict[str, Any] | None = None, private: bool = False,
) -> None:  # fmt: skip
    """Adds a function whose one dataflow block is what `body` emits; `body` returns its output variable.

    Whatever is raised inside leaves no block open: TVM would remark on that once the builder dies.
    """
    with builder.function(name, list(params), attrs=attrs, private=private):
        with ExitStack() as unfinished:
            unfinished.callback(builder._end_block)
            with builder.dataflow():
                result = body()
            unfinished.pop_all()
        builder.emit_func_output(result)


def is_graph(func: Any) -> bool:
    """Whether `func` is a Relax function on graph level."""
    if not isinstance(func, Function):
        return False
    owned = ("Primitive", "Composite", "Codegen")
    return func.attrs is None or not any(name in func.attrs for name in owned)


def drop_dead(mod: IRModule) -> IRModule:
    """Without the bindings that nothing uses."""
    return relax.transform.DeadCodeElimination()(mod)


def uses_of(func: Function) -> dict[Var, list[tuple[Var | None, Expr]]]:
    """For every variable: the bindings (variable, value) that read it, None for the result."""
    uses: dict[Var, list[tuple[Var | None, Expr]]] = {}

    def note(user: Var | None, expr: Expr, within: Expr) -> None:
        if isinstance(within, Var):
            uses.setdefault(within, []).append((user, expr))
        for child in operands(within):
            note(user, expr, child)

    for binding in bindings_of(func):
        note(binding.var, binding.value, binding.value)
    note(None, func.body.body, func.body.body)
    return uses


def operands(expr: Expr) -> Sequence[Expr]:
    """The direct sub-expressions of a call, tuple or projection."""
    if isinstance(expr, Call):
        return list(expr.args)
    if isinstance(expr, Tuple):
        return list(expr.fields)
    return [expr.tuple_value] if isinstance(expr, TupleGetItem) else []


def add_notes(mod: IRModule, notes: Sequence[dict[str, str]]) -> IRModule:
    """`mod` with remarks for `inspect` appended: dicts with `kind`, `node`, `text`."""
    return mod.with_attr(NOTES, [*notes_of(mod), *notes]) if notes else mod


def notes_of(mod: IRModule) -> list[dict[str, str]]:
    """What the passes said so far, in order."""
    found = mod.attrs[NOTES] if mod.attrs is not None and NOTES in mod.attrs else []
    return [{str(k): str(v) for k, v in note.items()} for note in found]


__all__ = [
    "BlockBuilder", "Call", "DataflowBlock", "Expr", "Function", "IRModule",
    "MatchCast", "Shape", "ShapeExpr", "TensorType", "Tuple", "TupleGetItem", "TupleType", "Var",
    "add_notes", "array_of", "at_place", "attrs_of", "bindings_of", "const", "define", "drop_dead",
    "dtype_of", "flat", "is_const", "is_graph", "make_attrs", "match_again", "notes_of", "op_name",
    "operands", "place_of", "rebuild", "relax", "rewrite", "same_graph", "same_shape", "shape_of",
    "shape_of_type", "source_of", "static_shape", "substitute", "tvm", "uses_of", "with_source",
]  # fmt: skip
