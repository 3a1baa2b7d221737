"""One row for every node of the source model: what became of it.

A node turns into several calls (a convolution, its bias, a requantize); its row shows the one
that does the work. A row counts as integer when that call reads or writes integers: a
convolution on integers that ends in a dequantize is one, moving integers around is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tvm_qat.ir import (
    Call,
    Expr,
    Function,
    IRModule,
    Tuple,
    array_of,
    bindings_of,
    dtype_of,
    is_const,
    notes_of,
    op_name,
    operands,
    shape_of,
    source_of,
    tvm,
)
from tvm_qat.qnn.table import OPS
from tvm_qat.report.macs import macs_of

_COUNTED = {
    "pruned": "pruned",
    "cancelled": "requantizes_cancelled",
    "batch_norm_folded": "batch_norms_folded",
}
_GRID_CHANGES = frozenset(["qnn.quantize", "qnn.dequantize", "qnn.requantize"])
_LAYOUT = frozenset(["relax.permute_dims", "relax.layout_transform"])
"""What passes put around other work; no row is named after it unless there is nothing else."""
_UNEXPLAINED = ("no integer rule for this operator", "no-rule")
_MOVED = ("only moves a tensor that is float here", "not-quantized")


@dataclass(frozen=True)
class Layer:
    """name : the source node's; op : operator that does its work; dtype : what that reads.

    macs : multiply-accumulates for one sample. reason : why it stays in float, else empty; code :
    the same for programs, one of passes.fold.values.CODES.
    """

    name: str
    op: str
    integer: bool
    dtype: str
    macs: int
    shape: tuple[int | str, ...]
    reason: str = ""
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Report:
    """layers : rows in execution order; totals : sums over them, by name."""

    layers: tuple[Layer, ...]
    totals: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"layers": [layer.to_json() for layer in self.layers], "totals": self.totals}

    @classmethod
    def from_json(cls, layers: Sequence[Mapping[str, Any]], totals: Mapping[str, Any]) -> Report:
        rows = (Layer(**{**row, "shape": tuple(row["shape"])}) for row in layers)
        return cls(tuple(rows), dict(totals))


def report_of(mod: IRModule, source: IRModule | None = None) -> Report:
    """The rows of `mod`, a module that went through the passes.

    source : the module as imported, for the size of its weights.
    """
    notes = notes_of(mod)
    gaps = {(note["node"], note["code"]): note["text"] for note in notes if note["kind"] == "unencoded"}
    reasons = {note["node"]: _reason(note, gaps) for note in notes if note["kind"] == "float"}
    groups: dict[str, list[Expr]] = {}
    for call in _calls(mod, mod["main"]):
        nameless = f"({_name(call)} {len(groups)})"
        groups.setdefault(source_of(call) or nameless, []).append(call)
    layers = tuple(_layer(name, calls, reasons.get(name)) for name, calls in groups.items())
    totals = _totals(layers, notes)
    totals["weight_bytes"] = _constant_bytes(mod)
    totals["source_weight_bytes"] = _constant_bytes(source if source is not None else mod)
    return Report(layers, totals)


def _reason(note: Mapping[str, str], gaps: Mapping[tuple[str, str], str]) -> tuple[str, str]:
    """(text, code), with the tensors of the node that a file of encodings left out."""
    gap = gaps.get((note["node"], note["code"]))
    return f"{note['text']} ({gap})" if gap else note["text"], note["code"]


def _calls(mod: IRModule, func: Function) -> Iterator[Expr]:
    """Every call in order; calls of composite functions are replaced by what these hold."""
    for binding in bindings_of(func):
        value = binding.value
        if not isinstance(value, Call):
            continue
        inner = mod[value.op] if isinstance(value.op, tvm.ir.GlobalVar) else None
        if isinstance(inner, Function):
            yield from _calls(mod, inner)
        elif shape_of(value) is not None or dtype_of(value):
            yield value


def _layer(name: str, calls: list[Expr], reason: tuple[str, str] | None) -> Layer:
    worker = max(calls, key=_weight)
    integer = _is_integer(worker)
    shape = tuple(size if isinstance(size, int) else str(size) for size in shape_of(worker) or ())
    why = ("", "") if integer else reason or (_MOVED if _name(worker) in _LAYOUT else _UNEXPLAINED)
    return Layer(name, _name(worker), integer, _dtype(worker), sum(map(macs_of, calls)), shape, *why)


def _weight(call: Expr) -> tuple[int, bool, bool, bool]:
    """Which call of a node stands for it: the one with products, then any that does real work."""
    name = op_name(call)
    return macs_of(call), name not in _LAYOUT, name not in _GRID_CHANGES, name in OPS


def _name(call: Expr) -> str:
    return op_name(call) or str(
        getattr(call.op, "name_hint", None) or getattr(call.op, "global_symbol", call.op)
    )


def _is_integer(call: Expr) -> bool:
    """Float tensors neither enter nor leave, except over the boundary or through a dialect operator."""
    if op_name(call) in OPS:
        return OPS[op_name(call)].kind != "training"
    types = [dtype_of(call), *map(dtype_of, _tensors(call))]
    return not any("float" in dtype for dtype in types)


def _tensors(call: Expr) -> Iterator[Expr]:
    for arg in call.args:
        yield from operands(arg) if isinstance(arg, Tuple) else [arg]


def _dtype(call: Expr) -> str:
    """The dtype that a call works on: of its first tensor that is one, else of its result."""
    if op_name(call) == "qnn.quantize":
        return dtype_of(call)
    return next(filter(None, map(dtype_of, _tensors(call))), dtype_of(call))


def _totals(layers: Sequence[Layer], notes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    macs = sum(layer.macs for layer in layers)
    integer_macs = sum(layer.macs for layer in layers if layer.integer)
    working = [layer for layer in layers if layer.op not in _GRID_CHANGES]
    kinds = Counter(note["kind"] for note in notes)
    return {
        "macs": macs,
        "int8_macs": integer_macs,
        "int8_mac_share": integer_macs / macs if macs else 1.0,
        "integer_operators": sum(layer.integer for layer in working),
        "float_operators": sum(not layer.integer for layer in working),
        "grid_changes": len(layers) - len(working),
        **{total: kinds[kind] for kind, total in _COUNTED.items()},
    }


def _constant_bytes(mod: IRModule) -> int:
    """Bytes of all constants of the graph; one that is read twice counts once."""
    sizes: dict[Any, int] = {}

    def visit(expr: Expr) -> None:
        if is_const(expr):
            sizes[expr.value] = array_of(expr).nbytes
        for child in operands(expr):
            visit(child)

    for _, func in mod.functions_items():
        if isinstance(func, Function):
            for binding in bindings_of(func):
                visit(binding.value)
            visit(func.body.body)
    return sum(sizes.values())
