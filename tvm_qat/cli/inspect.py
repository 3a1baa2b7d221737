"""Show what runs on integers, what stays in float and why."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

import tvm_qat as tq
from tvm_qat.cli import console, options

if TYPE_CHECKING:
    from tvm_qat.report import Layer, Removed, Report, Tensor

_COLUMNS = (
    ("layer", "left"), ("operator", "left"), ("integer", "left"), ("dtype", "left"), ("grid in", "left"),
    ("grid out", "left"), ("MACs", "right"), ("bytes", "right"), ("kernel", "left"), ("fused into", "left"),
)  # fmt: skip
_PASSED_OVER = ("became a grid", "computed at compile time")
"""Too many for the table; they are counted below it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file, or a package that `compile` wrote")
    parser.add_argument(
        "--target", metavar="T", help="whose kernels are named (default: native; a package has its own)"
    )
    parser.add_argument("--dot", metavar="FILE", help="write the graph as Graphviz text")
    parser.add_argument(
        "--graph", metavar="FILE", help="write the graph, with what this table says, as ONNX for Netron"
    )
    options.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:

    options.check_outputs(args, args.dot, args.graph)
    with console.progress() as show:
        report = tq.inspect(args.model, args.target, **options.model_options(args), progress=show)
    _write_graphs(report, args)
    if args.json:
        console.print_json({"model": args.model, **report.to_json()})
    else:
        print_report(report)
    return 0


def _write_graphs(report: Report, args: argparse.Namespace) -> None:
    from tvm_qat.package.files import write_atomically
    from tvm_qat.report.graph import to_dot, to_onnx

    if args.dot:
        write_atomically(args.dot, to_dot(report).encode())
    if args.graph:
        write_atomically(args.graph, to_onnx(report).SerializeToString(deterministic=True))


def print_report(report: Report) -> None:
    """The table of layers, what stays in float, and the totals."""
    out = console.out()
    out.print(console.table(None, _COLUMNS, _rows(report)))
    print_reasons(report)
    totals = report.totals
    print()
    print(f"operators on integers      {totals['integer_operators']}")
    print(f"operators in float         {totals['float_operators']}")
    print(f"changes of grid            {totals['grid_changes']} (quantize, dequantize, requantize)")
    print(
        f"multiply-accumulates       {totals['macs']:,}, {totals['int8_mac_share']:.2%} of them on integers"
    )
    by = totals.get("instruction") or console.in_plain_loops(totals)
    if by and totals["int8_macs"]:
        print(f"products by                {by}")
    moved = console.in_bytes(totals["bytes"])
    print(f"weights and activations    {moved}, {totals['int8_byte_share']:.2%} of them in 8 bits")
    sizes = (totals["source_weight_bytes"], totals["weight_bytes"])
    print(f"constants                  {' -> '.join(map(console.in_bytes, sizes))}")
    print(f"batch norms folded         {totals['batch_norms_folded']}")
    print(f"training remnants pruned   {totals['pruned']}")
    print(f"requantizes cancelled      {totals['requantizes_cancelled']}")
    for how, count in Counter(node.how for node in report.removed).items():
        print(f"{f'nodes: {how}':<34} {count}")


def print_reasons(report: Report) -> None:
    """Why each layer in float is there, and what to do about it."""
    rows = [(layer.name, layer.reason, layer.remedy) for layer in report.layers if not layer.integer]
    if rows:
        print()
        columns = [("stays in float", "left"), ("why", "left"), ("remedy", "left")]
        console.out().print(console.table(None, columns, rows))


def _rows(report: Report) -> list[list[str]]:
    """The layers, each with the nodes below it that joined it."""
    joined: dict[str, list[Removed]] = {}
    for node in report.removed:
        if node.how not in _PASSED_OVER:
            joined.setdefault(node.into, []).append(node)
    rows = [_removed(node) for node in joined.pop("", ())]
    for layer in report.layers:
        rows += [_row(layer), *map(_removed, joined.pop(layer.name, ()))]
    return [*rows, *(_removed(node) for nodes in joined.values() for node in nodes)]


def _row(layer: Layer) -> list[str]:
    macs = f"{layer.macs:,}" if layer.macs else ""
    moved = console.in_bytes(layer.weight_bytes + layer.activation_bytes)
    kernel = layer.kernel if layer.isa in ("", "generic") else f"{layer.kernel} {layer.isa}"
    return [
        layer.name, layer.op, "yes" if layer.integer else "no", _dtypes(layer), _grids(layer.inputs),
        _grids(layer.outputs[:1]), macs, moved, kernel, layer.fused_into,
    ]  # fmt: skip


def _removed(node: Removed) -> list[str]:
    return [node.name, node.op, "-", "", "", "", "", "", node.how, node.into]


def _dtypes(layer: Layer) -> str:
    """What it works on, and what comes out."""
    result = layer.outputs[0].dtype if layer.outputs else layer.dtype
    begin = layer.inputs[0].dtype if layer.inputs else layer.dtype
    return begin if begin == result else f"{begin} -> {result}"


def _grids(tensors: tuple[Tensor, ...]) -> str:
    from tvm_qat.report.graph import short

    return ", ".join(short(tensor.qparams) for tensor in tensors if tensor.qparams is not None)
