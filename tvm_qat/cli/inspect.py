"""Show what runs on integers, what stays in float and why."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import tvm_qat as tq
from tvm_qat.cli import console, options

if TYPE_CHECKING:
    from tvm_qat.report import Layer, Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file, or a package that `compile` wrote")
    options.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    with console.progress() as show:
        report = tq.inspect(args.model, **options.model_options(args), progress=show)
    if args.json:
        console.print_json({"model": args.model, **report.to_json()})
    else:
        print_report(report)
    return 0


def print_report(report: Report) -> None:
    """The table of layers and the totals below it."""
    out = console.out()
    columns = [
        ("layer", "left"), ("operator", "left"), ("integer", "left"), ("dtype", "left"),
        ("MACs", "right"), ("why it stays in float", "left"),
    ]  # fmt: skip
    out.print(console.table(None, columns, [_row(layer) for layer in report.layers]))
    print_remedies(report)
    totals = report.totals
    print()
    print(f"operators on integers      {totals['integer_operators']}")
    print(f"operators in float         {totals['float_operators']}")
    print(f"changes of grid            {totals['grid_changes']} (quantize, dequantize, requantize)")
    print(
        f"multiply-accumulates       {totals['macs']:,}, {totals['int8_mac_share']:.2%} of them on integers"
    )
    sizes = (totals["source_weight_bytes"], totals["weight_bytes"])
    print(f"constants                  {' -> '.join(map(console.in_bytes, sizes))}")
    print(f"batch norms folded         {totals['batch_norms_folded']}")
    print(f"training remnants pruned   {totals['pruned']}")
    print(f"requantizes cancelled      {totals['requantizes_cancelled']}")


def print_remedies(report: Report) -> None:
    """What to do about the reasons in the table, each once."""
    from tvm_qat.passes.fold.values import CODES

    found = {layer.code for layer in report.layers}
    remedies = [f"{code:<26} {remedy}" for code, remedy in CODES.items() if code in found]
    if remedies:
        print("\n" + "\n".join(remedies))


def _row(layer: Layer) -> list[str]:
    macs = f"{layer.macs:,}" if layer.macs else ""
    return [layer.name, layer.op, "yes" if layer.integer else "no", layer.dtype, macs, layer.reason]
