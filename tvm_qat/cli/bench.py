"""Measure a model beside other runtimes, in turns."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tvm_qat.cli import console, options
from tvm_qat.errors import InputError, located

if TYPE_CHECKING:
    from tvm_qat.bench.compare import Comparison, Row
    from tvm_qat.bench.layers import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the ONNX file of a quantized network")
    parser.add_argument(
        "--against", metavar="A,B", type=options.names, default=["onnxruntime"],
        help="other runtimes: onnxruntime, openvino (default: onnxruntime)",
    )  # fmt: skip
    parser.add_argument("--float", metavar="FILE", help="the network in float, for the other runtimes too")
    parser.add_argument("--tflite", metavar="FILE", help="the network's TFLite file, measured with LiteRT")
    parser.add_argument("-i", "--inputs", metavar="NPZ", help="arrays named after the model's inputs")
    parser.add_argument("--target", metavar="T", default="native", help="what to compile for")
    parser.add_argument("--threads", metavar="N", type=options.positive, default=1, help="for each runtime")
    parser.add_argument("--rounds", metavar="N", type=options.positive, default=20, help="turns of each")
    parser.add_argument(
        "--first", action="store_true", help="run before other processes (as root), for a busy machine"
    )
    parser.add_argument(
        "--input-shapes", metavar="S", type=options.shapes, default={},
        help='shapes by input name, e.g. for a batch: "x:[8,3,224,224]"',
    )  # fmt: skip
    parser.add_argument("--rounding", metavar="P", help="profile of the requantize arithmetic")
    parser.add_argument("--per-layer", action="store_true", help="time, GOPS and share of peak by kernel")
    parser.add_argument("-o", "--output", metavar="JSON", help="write the figures to this file too")
    parser.add_argument("--plot", metavar="SVG", help="write a bar plot")


def run(args: argparse.Namespace) -> int:
    from tvm_qat.bench.compare import Options, compare
    from tvm_qat.cli.arrays import read_npz
    from tvm_qat.package.files import write_atomically

    options.check_outputs(args, args.output, args.plot)
    if args.plot and not args.plot.endswith(".svg"):
        raise InputError(located("plots are written as SVG", file=args.plot, remedy="name it .svg"))
    chosen = Options(
        against=tuple(args.against), float_model=args.float, tflite=args.tflite,
        inputs=read_npz(args.inputs) if args.inputs else None, input_shapes=args.input_shapes,
        threads=args.threads, rounds=args.rounds, target=args.target, rounding=args.rounding,
        per_layer=args.per_layer, first=args.first,
    )  # fmt: skip
    with console.progress() as show:
        found = compare(args.model, chosen, show)
    document = found.to_json()
    if args.output:
        write_atomically(args.output, (json.dumps(document, indent=1) + "\n").encode())
    if args.plot:
        write_atomically(args.plot, _plot(found).encode())
    if args.json:
        console.print_json(document)
    else:
        print_comparison(found)
    return 0


def print_comparison(found: Comparison) -> None:
    """The table of runtimes, what it rests on, and the layers if they were measured."""
    out = console.out()
    columns = [
        ("runtime", "left"), ("version", "left"), ("ours is", "right"), ("quartiles", "right"),
        ("by CPU time", "right"), ("ms", "right"), ("p10", "right"), ("p90", "right"), ("kept", "right"),
        ("dropped", "right"), ("agrees", "right"), ("load s", "right"), ("peak memory", "right"),
    ]  # fmt: skip
    out.print(console.table(None, columns, [_row(row) for row in found.rows]))
    machine = found.machine
    size, weights = found.package_bytes, found.weight_bytes
    print()
    print(f"model       {found.model}, {found.macs / 1e6:,.1f} M multiply-accumulates")
    print(f"compiled in {found.compile_seconds:.1f} s for {machine['target']}")
    print(f"package     {console.in_bytes(size)}, {size / weights:.2f} x its constants")
    loads = f"{machine['load_before']:.1f} before, {machine['load_after']:.1f} after"
    print(f"machine     {machine['processor']}, {machine['threads']} thread(s); load {loads}")
    dropped = sum(row.figures.dropped for row in found.rows)
    total = dropped + sum(row.figures.kept for row in found.rows)
    if 2 * dropped > total:
        print(f"other work disturbed {dropped} of {total} runs: measure again when the machine is idle")
    if found.profile is not None:
        _print_profile(found.profile)


def _row(row: Row) -> list[str]:
    ratio, figures = row.ratio, row.figures
    quartiles = f"{ratio.low:.3f}-{ratio.high:.3f}" if ratio and ratio.median is not None else ""
    return [
        row.label,
        row.version.split("-")[0],
        "" if ratio is None else _times(ratio.median),
        quartiles,
        "" if ratio is None else _times(ratio.cpu),
        *map(_in_ms, (figures.median, figures.p10, figures.p90)),
        str(figures.kept),
        str(figures.dropped),
        "" if row.agreement is None else f"{row.agreement:.4f}",
        f"{row.load_seconds:.2f}",
        console.in_bytes(row.memory),
    ]


def _times(value: float | None) -> str:
    return "disturbed" if value is None else f"{value:.3f} x"


def _in_ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.4g}"


def _print_profile(profile: Profile) -> None:
    columns = [
        ("layer", "left"), ("kernel", "left"), ("us", "right"), ("share", "right"), ("M MACs", "right"),
        ("GOPS", "right"), ("of peak", "right"),
    ]  # fmt: skip
    rows = [
        [
            layer.name, layer.kernel, f"{1e6 * layer.seconds:.1f}", f"{layer.share:.1%}",
            f"{layer.macs / 1e6:.1f}" if layer.macs else "",
            f"{layer.gops:.0f}" if layer.gops is not None else "",
            f"{layer.of_peak:.0%}" if layer.of_peak is not None else "",
        ]
        for layer in profile.layers
    ]  # fmt: skip
    print()
    console.out().print(console.table(None, columns, rows))
    print(f"\nkernels together {1e3 * profile.seconds:.3f} ms, {profile.macs / 1e6:,.1f} M MACs")
    if profile.peak is None:
        print("no peak: this machine has none of the dot instructions that are known")
    else:
        print(f"peak {profile.peak:.0f} GOPS measured ({profile.instruction}, in registers)")


def _plot(found: Comparison) -> str:
    from tvm_qat.bench.plot import Bar, bars

    rows = [
        Bar(
            row.label, 1e3 * row.figures.median, f"{1e3 * row.figures.median:.3g} ms", row.ratio is None,
            1e3 * (row.figures.p10 or 0.0), 1e3 * (row.figures.p90 or 0.0),
        )
        for row in found.rows
        if row.figures.median is not None
    ]  # fmt: skip
    threads = found.machine["threads"]
    return bars(f"{found.model}: milliseconds an inference, {threads} thread(s)", rows)
