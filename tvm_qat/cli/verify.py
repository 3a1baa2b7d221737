"""Compare simulation, integer reference and compiled code, layer by layer."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tvm_qat as tq
from tvm_qat.cli import console, options
from tvm_qat.errors import InputError, located

if TYPE_CHECKING:
    from tvm_qat.verification import Layer, Stage, Suggestion, Summary, Verification

_MOST_ROWS = 40
"""Of a table for people; the JSON holds all."""

_MOST_NAMES = 4
"""Of nodes in a row."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument(
        "-i", "--inputs", metavar="NPZ",
        help="arrays named after the model's inputs, of any number of samples (default: random ones)",
    )  # fmt: skip
    parser.add_argument("--labels", metavar="NPZ", help="one array: the class of each sample")
    parser.add_argument("--samples", metavar="N", type=options.positive, help="random samples (default: 4)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of random samples (default: 0)")
    parser.add_argument("--target", metavar="T", default="native", help="what to compile for")
    parser.add_argument(
        "--max-steps", metavar="N", type=_number,
        help="fail if a layer, on the simulation's inputs, differs from it by more steps",
    )  # fmt: skip
    parser.add_argument(
        "--min-agreement", metavar="X", type=_share,
        help="fail if a smaller share of outputs has its greatest element where the simulation has it",
    )  # fmt: skip
    parser.add_argument(
        "--suggest", metavar="STEPS", type=_number,
        help="find the fewest layers to keep in float so that no output is more steps from the simulation",
    )  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="time the kernels too, for --json")
    parser.add_argument("--against", metavar="E", help="also compare: onnxruntime, litert or torch")
    parser.add_argument("-o", "--output", metavar="JSON", help="write all figures to this file too")
    parser.add_argument(
        "--report", metavar="HTML", help="write a page with plots, ranges, times and the graph; times kernels"
    )
    parser.add_argument(
        "--reduce", metavar="ONNX",
        help="write the smallest part of the model that still differs or fails, its inputs beside it as .npz",
    )  # fmt: skip
    options.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.reduce is None:
        return _verify(args)
    from tvm_qat.verification import reduce

    options.check_outputs(args, args.reduce, reduce.inputs_beside(args.reduce), args.output, args.report)
    reduce.reducible(args.model, **options.model_options(args))
    try:
        code = _verify(args)
    except reduce.FAULTS:
        _reduce(args)
        raise
    if code:
        _reduce(args)
    else:
        print(f"nothing differs: {args.reduce} is not written", file=sys.stderr)
    return code


def _reduce(args: argparse.Namespace) -> None:
    """Write the smallest part of a model that `verify` found at fault."""
    from tvm_qat.cli.arrays import read_npz
    from tvm_qat.verification import reduce

    with console.progress() as show:
        found = reduce.reduce(
            args.model, read_npz(args.inputs) if args.inputs else None, target=args.target,
            seed=args.seed, samples=args.samples, max_steps=args.max_steps, progress=show,
            **options.model_options(args),
        )  # fmt: skip
    if found is None:
        print(f"no single input shows it in a layer: {args.reduce} is not written", file=sys.stderr)
        return
    found.write(args.reduce)
    size = f"{len(found.nodes)} of {found.whole} nodes: {', '.join(found.nodes)}"
    print(f"wrote {args.reduce} and {reduce.inputs_beside(args.reduce)}, {size}", file=sys.stderr)
    print(f"they show: {found.symptom}", file=sys.stderr)


def _verify(args: argparse.Namespace) -> int:
    from tvm_qat.cli.arrays import read_npz
    from tvm_qat.package.files import write_atomically

    options.check_outputs(args, args.output, args.report)
    with console.progress(remaining=True) as show:
        found = tq.verify(
            args.model, read_npz(args.inputs) if args.inputs else None,
            labels=_labels(args.labels) if args.labels else None, target=args.target, seed=args.seed,
            samples=args.samples, max_steps=args.max_steps, min_agreement=args.min_agreement,
            against=args.against, profile=args.profile, suggest=args.suggest,
            **options.model_options(args), progress=show,
        )  # fmt: skip
    document = found.to_json()
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # the page first: to time kernels may fail, and then nothing is written
    if args.report:
        with console.progress() as show:
            show("time of each kernel", 0.0)
            tq.write_report(found, args.report)
    if args.output:
        write_atomically(args.output, (text + "\n").encode())
    if args.json:
        console.print_json(document)
    else:
        print_verification(found)
        if found.suggestion is not None:
            print_suggestion(found.suggestion)
    return 0 if found.passed else 1


def _labels(path: str) -> Any:
    from tvm_qat.cli.arrays import read_npz

    arrays = read_npz(path)
    if len(arrays) != 1:
        names = ", ".join(arrays) or "none"
        raise InputError(located(f"holds {len(arrays)} arrays ({names})", file=path, remedy="labels are one"))
    return next(iter(arrays.values()))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


# ---------------------------------------------------------------- for people


def print_verification(found: Verification) -> None:
    """The layers of the reference, what differs in compiled code, the quantizers, and the sums."""
    stages = {(stage.name, stage.against): stage for stage in found.stages}
    _print_reference(stages["reference", "simulation"])
    for stage in found.stages:
        if stage.against != "simulation":
            _print_differing(stage)
    _print_warnings(found)
    summaries = found.summaries
    print()
    drawn = "" if found.seed is None else f", random, --seed {found.seed}"
    print(f"samples                    {found.samples}{drawn}; {found.seconds:.1f} s")
    for name, summary in summaries.items():
        print(f"{name.replace('_vs_', ' - '):<26} {_in_words(summary)}")
    for name, share in found.agreement.items():
        print(f"{f'agreement, {name}':<26} {share:.2%} of the outputs' rows, with the simulation")
    for name, accuracy in (found.accuracy or {}).items():
        top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5:.2%}"
        print(f"{f'accuracy, {name}':<26} top-1 {accuracy.top1:.2%}{top5}")
    for failure in found.failures:
        print(f"failed                     {failure}")


def print_suggestion(found: Suggestion) -> None:
    """What was tried, and the flag that does what is suggested."""
    rows = [(_some(trial.keep_float), f"{trial.max_steps:.3g}") for trial in found.trials]
    print()
    console.out().print(console.table(None, [("kept in float", "left"), ("outputs: most", "right")], rows))
    print()
    for part, line in enumerate(filter(None, [*found.in_words(), found.flag])):
        print(f"{'' if part else 'suggestion':<26} {line}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return (", ".join(names[:_MOST_NAMES]) or "nothing") + (f" and {more} more" if more > 0 else "")


def _in_words(summary: Summary) -> str:
    if not summary.differing:
        return f"0 of {summary.elements:,} elements differ, in {summary.layers} layers"
    differing = f"{summary.differing:,} of {summary.elements:,} elements differ"
    steps = f"by at most {summary.max_steps:g} steps, {summary.tie_share:.1%} explained by ties"
    return f"{differing}, {steps}; first {summary.first_layer}, worst {summary.worst_layer}"


def _print_reference(stage: Stage) -> None:
    """Every layer, worst first where there are too many."""
    layers, left_out = _shown(stage)
    columns = [
        ("layer", "left"), ("operator", "left"), ("elements", "right"), ("differ", "right"),
        ("ties", "right"), ("most", "right"), ("mean", "right"), ("SQNR dB", "right"), ("cosine", "right"),
        ("with inherited: differ", "right"), ("most", "right"), ("SQNR dB", "right"),
    ]  # fmt: skip
    console.out().print(console.table(None, columns, [_row(layer) for layer in layers]))
    print("\nreference beside the simulation; steps of the layer's grid, % of the largest value in float")
    if left_out:
        print(f"{left_out} more layers differ less; --json shows all")


def _shown(stage: Stage) -> tuple[list[Layer], int]:
    layers = stage.layers
    if len(layers) <= _MOST_ROWS:
        return list(layers), 0
    worst = sorted(layers, key=lambda layer: -layer.figures.noise)[:_MOST_ROWS]
    return [layer for layer in layers if layer in worst], len(layers) - len(worst)


def _row(layer: Layer) -> list[str]:
    figures, inherited = layer.figures, layer.inherited or layer.figures
    share = figures.differing / figures.elements if figures.elements else 0.0
    other = inherited.differing / inherited.elements if inherited.elements else 0.0
    return [
        layer.name, layer.op, f"{figures.elements:,}", f"{share:.2%}",
        f"{figures.tie_share:.0%}" if figures.differing and figures.max_steps is not None else "",
        _most(figures.max_steps, figures.max_relative), _most(figures.mean_steps, figures.mean_relative),
        _decibels(figures.sqnr_db), f"{figures.cosine:.6f}",
        f"{other:.2%}", _most(inherited.max_steps, inherited.max_relative), _decibels(inherited.sqnr_db),
    ]  # fmt: skip


def _most(steps: float | None, relative: float | None) -> str:
    return f"{steps:.3g}" if steps is not None else f"{100 * (relative or 0.0):.2g} %"


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _print_differing(stage: Stage) -> None:
    differing = [layer for layer in stage.layers if layer.figures.differing]
    if not differing:
        return
    columns = [
        (f"{stage.name} - {stage.against}", "left"),
        ("elements", "right"),
        ("differ", "right"),
        ("most", "right"),
    ]
    rows = [
        [
            layer.name, f"{layer.figures.elements:,}", f"{layer.figures.differing:,}",
            _most(layer.figures.max_steps, layer.figures.max_relative),
        ]
        for layer in differing[:_MOST_ROWS]
    ]  # fmt: skip
    print()
    console.out().print(console.table(None, columns, rows))


def _print_warnings(found: Verification) -> None:
    rows = [(q.name, q.kind, "; ".join(q.warnings)) for q in found.quantizers if q.warnings]
    if rows:
        print()
        columns = [("quantizer", "left"), ("of", "left"), ("warning", "left")]
        console.out().print(console.table(None, columns, rows[:_MOST_ROWS]))
        if found.seed is not None:
            print("drawn inputs say little about ranges: give real ones with -i")
        if len(rows) > _MOST_ROWS:
            print(f"and {len(rows) - _MOST_ROWS} more; --json shows all")
