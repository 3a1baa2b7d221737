"""Sums over the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tvm_qat.ir import Expr, Function, IRModule, array_of, bindings_of, is_const, operands
from tvm_qat.report.tensors import Edges

if TYPE_CHECKING:
    from tvm_qat.report.layers import Layer

_COUNTED = {
    "pruned": "pruned",
    "cancelled": "requantizes_cancelled",
    "batch_norm_folded": "batch_norms_folded",
}
GRID_CHANGES = frozenset(["qnn.quantize", "qnn.dequantize", "qnn.requantize"])
_BYTES = ("int8", "uint8")


def totals_of(
    layers: Sequence[Layer], edges: Edges, notes: Sequence[Mapping[str, str]], mod: IRModule,
    source: IRModule | None,
) -> dict[str, Any]:  # fmt: skip
    """bytes : of weights, and of activations that kernels read and write; int8_bytes : those of 8 bits."""
    macs = sum(layer.macs for layer in layers)
    integer_macs = sum(layer.macs for layer in layers if layer.integer)
    working = [layer for layer in layers if layer.op not in GRID_CHANGES]
    kinds = Counter(note["kind"] for note in notes)
    moved = _by_dtype(edges)
    everything, narrow = sum(moved.values()), sum(moved[dtype] for dtype in _BYTES)
    return {
        "macs": macs,
        "int8_macs": integer_macs,
        "int8_mac_share": integer_macs / macs if macs else 1.0,
        "bytes": everything,
        "int8_bytes": narrow,
        "int8_byte_share": narrow / everything if everything else 1.0,
        "integer_operators": sum(layer.integer for layer in working),
        "float_operators": sum(not layer.integer for layer in working),
        "grid_changes": len(layers) - len(working),
        **{total: kinds[kind] for kind, total in _COUNTED.items()},
        "weight_bytes": constant_bytes(mod),
        "source_weight_bytes": constant_bytes(source if source is not None else mod),
    }


def _by_dtype(edges: Edges) -> Counter[str]:
    counts: Counter[str] = Counter()
    for moved in edges.moved.values():
        counts.update(moved)
    for held in edges.held.values():
        for tensor in held:
            counts[tensor.dtype] += tensor.bytes
    return counts


def constant_bytes(mod: IRModule) -> int:
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
