"""One row for every node of the source model: what became of it.

A node turns into several calls (a convolution, its bias, a requantize); its row shows the one
that does the work. A row counts as integer when that call reads or writes integers: a
convolution on integers that ends in a dequantize is one, moving integers around is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tvm_qat.ir import IRModule, dtype_of, notes_of, shape_of, source_of
from tvm_qat.kernels import gather_islands
from tvm_qat.marks import node_kinds
from tvm_qat.passes.fold.values import CODES
from tvm_qat.qnn.table import OPS
from tvm_qat.report.flat import Flat, FlatCall, flatten
from tvm_qat.report.grids import grids_of
from tvm_qat.report.macs import macs_of
from tvm_qat.report.removed import Removed, removed_nodes
from tvm_qat.report.runs import Run, runs_of, views_of
from tvm_qat.report.tensors import Edges, Tensor, edges_of
from tvm_qat.report.totals import GRID_CHANGES, totals_of

_LAYOUT = frozenset(["relax.permute_dims", "relax.layout_transform"])
"""What passes put around other work; no row is named after it unless there is nothing else."""
_UNEXPLAINED = ("no integer rule for this operator", "no-rule")
_MOVED = ("only moves a tensor that is float here", "not-quantized")


@dataclass(frozen=True)
class Layer:
    """name : the source node's; op : operator that does its work; dtype : what that reads; kind : the
    node's operator as the model's format calls it, "" if that is not known.

    macs : multiply-accumulates for one sample. reason : why it stays in float, else empty; code :
    the same for programs, one of passes.fold.values.CODES; remedy : what to do about it.
    inputs, weights, outputs : what it reads of other nodes, holds, and leaves to others.
    weight_bytes : of what it holds. activation_bytes : of activations that its kernel reads from memory
    for it, and writes. kernel, isa : what runs it and with which instructions, "" where that was not
    asked for; functions : symbols of all kernels that work for it, that one first. fused_into : the node
    whose kernel holds it, if another.
    """

    name: str
    op: str
    integer: bool
    dtype: str
    macs: int
    shape: tuple[int | str, ...]
    reason: str = ""
    code: str = ""
    inputs: tuple[Tensor, ...] = ()
    weights: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    weight_bytes: int = 0
    activation_bytes: int = 0
    kind: str = ""
    kernel: str = ""
    isa: str = ""
    functions: tuple[str, ...] = ()
    fused_into: str = ""

    @property
    def remedy(self) -> str:
        return CODES[self.code] if self.code else ""

    def to_json(self) -> dict[str, Any]:
        row = dict(self.__dict__)
        for kind in _TENSORS:
            row[kind] = [tensor.to_json() for tensor in row[kind]]
        lists = {"shape": list(self.shape), "functions": list(self.functions)}
        return {**row, **lists, "remedy": self.remedy}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Layer:
        tensors = {kind: tuple(map(Tensor.from_json, row[kind])) for kind in _TENSORS}
        rest = {name: value for name, value in row.items() if name != "remedy"}
        lists = {name: tuple(row[name]) for name in ("shape", "functions")}
        return cls(**{**rest, **lists, **tensors})


_TENSORS = ("inputs", "weights", "outputs")


@dataclass(frozen=True)
class Report:
    """layers : rows in execution order. removed : nodes of which nothing is left to run.

    totals : sums over the rows, by name.
    """

    layers: tuple[Layer, ...]
    totals: dict[str, Any] = field(default_factory=dict)
    removed: tuple[Removed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "layers": [layer.to_json() for layer in self.layers],
            "removed": [node.to_json() for node in self.removed],
            "totals": self.totals,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """What `to_json` returned; other keys are passed over."""
        rows = tuple(map(Layer.from_json, document["layers"]))
        removed = tuple(Removed(**node) for node in document["removed"])
        return cls(rows, dict(document["totals"]), removed)


def report_of(
    mod: IRModule, source: IRModule | None = None, chosen: Sequence[Mapping[str, Any]] = (),
    instruction: str = "",
) -> Report:  # fmt: skip
    """The rows of `mod`, a module that went through the passes.

    source : the module as imported, for what was removed and the size of its weights.
    chosen : `kernels.chosen_kernels` of the lowered module. instruction : `kernels.instruction_of` its
    target.
    """
    notes, flat = notes_of(mod), flatten(gather_islands(mod))
    groups: dict[str, list[FlatCall]] = {}
    for call in flat.calls:
        nameless = f"({call.op} {len(groups)})"
        groups.setdefault(source_of(call.call) or nameless, []).append(call)
    names = {call: name for name, calls in groups.items() for call in calls}
    reasons = _reasons(notes)
    layers = [_layer(flat, name, calls, reasons.get(name, ())) for name, calls in groups.items()]
    edges = edges_of(flat, names, grids_of(flat, notes), views_of(flat.calls, chosen))
    runs = runs_of(groups, {name: _worker(calls) for name, calls in groups.items()}, chosen)
    kinds = node_kinds(mod)
    rows = tuple(
        replace(_completed(layer, edges, runs.get(layer.name)), kind=kinds.get(layer.name, ""))
        for layer in layers
    )
    removed = removed_nodes(source, set(groups), notes) if source is not None else ()
    totals = {**totals_of(rows, edges, notes, mod, source), "instruction": instruction}
    return Report(rows, totals, removed)


def _reasons(notes: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """(text, code) by node, with the tensors of the node that a file of encodings left out."""
    gaps = {(note["node"], note["code"]): note["text"] for note in notes if note["kind"] == "unencoded"}
    found: dict[str, list[tuple[str, str]]] = {}
    for note in notes:
        if note["kind"] == "float":
            code = "result-not-quantized" if note["code"] == "model-output" else note["code"]
            gap = gaps.get((note["node"], code))
            why = (f"{note['text']} ({gap})" if gap else note["text"], note["code"])
            found.setdefault(note["node"], []).append(why)
    return found


def _reason_of(worker: FlatCall, reasons: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The reason of the operator that the row shows, where a node made several: its bias may have its own."""
    operator = worker.op.removeprefix("relax.").removeprefix("nn.")
    own = [why for why in reasons if why[0].startswith(f"{operator}: ")]
    return next(reversed(own or reasons), None)


def _layer(flat: Flat, name: str, calls: Sequence[FlatCall], reasons: Sequence[tuple[str, str]]) -> Layer:
    worker = _worker(calls)
    integer = _is_integer(worker)
    shape = flat.shape(worker.results[-1].ty) if shape_of(worker.results[-1]) is not None else ()
    reason = _reason_of(worker, reasons)
    why = ("", "") if integer else reason or (_MOVED if worker.op in _LAYOUT else _UNEXPLAINED)
    macs = sum(macs_of(call.call) for call in calls)
    return Layer(name, worker.op, integer, _dtype(worker), macs, shape, *why)


def _completed(layer: Layer, edges: Edges, run: Run | None) -> Layer:
    held = edges.held.get(layer.name, [])
    changes: dict[str, Any] = {} if run is None else run.fields(layer.name)
    return replace(
        layer,
        inputs=tuple(edges.read.get(layer.name, ())),
        weights=tuple(held),
        outputs=tuple(edges.written.get(layer.name, ())),
        weight_bytes=sum(tensor.bytes for tensor in held),
        activation_bytes=sum(edges.moved.get(layer.name, {}).values()),
        **changes,
    )


def _worker(calls: Sequence[FlatCall]) -> FlatCall:
    """Which call of a node stands for it: the one with products, then any that does real work."""
    return max(
        calls,
        key=lambda c: (macs_of(c.call), c.op not in _LAYOUT, c.op not in GRID_CHANGES, c.op in OPS),
    )


def _is_integer(call: FlatCall) -> bool:
    """Float tensors neither enter nor leave, except over the boundary or through a dialect operator."""
    if call.op in OPS:
        return OPS[call.op].kind != "training"
    return not any("float" in dtype for dtype in map(dtype_of, (*call.results, *call.data)))


def _dtype(call: FlatCall) -> str:
    """The dtype that a call works on: of its first tensor that is one, else of its result."""
    if call.op == "qnn.quantize":
        return dtype_of(call.var)
    return next(filter(None, map(dtype_of, call.data)), dtype_of(call.results[-1]))
