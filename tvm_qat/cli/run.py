"""Run a package on data, and time it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import tvm_qat as tq
from tvm_qat.cli import console, options

if TYPE_CHECKING:
    from tvm_qat.package import KernelTime, Package, Times

Array = npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", metavar="TAR", help="a package that `compile` wrote")
    parser.add_argument("-i", "--inputs", metavar="NPZ", help="arrays named after the model's inputs")
    parser.add_argument("-o", "--outputs", metavar="NPZ", help="where to write the outputs, by their names")
    parser.add_argument(
        "--fill-mode", choices=("random", "zeros", "ones"),
        help="data for inputs that --inputs does not hold (default, without --inputs: random)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="where to run")
    parser.add_argument("--print-time", action="store_true", help="time it")
    parser.add_argument("--repeat", metavar="N", type=options.positive, default=10, help="figures to take")
    parser.add_argument(
        "--number", metavar="N", type=options.positive, default=1, help="runs that make up one figure"
    )

    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument(
        "--print-top", metavar="N", type=options.positive, help="with --profile: only the N slowest kernels"
    )


def run(args: argparse.Namespace) -> int:
    from tvm_qat.package.files import write_npz

    options.check_outputs(args, args.outputs)
    package = tq.load(args.package)
    data = _data(package, args)
    results = package.run(data)
    times = package.benchmark(data, repeat=args.repeat, number=args.number) if args.print_time else None
    if args.outputs:
        write_npz(args.outputs, results)
    kernels = package.profile(data, repeat=args.repeat) if args.profile else []
    total = sum(kernel.seconds for kernel in kernels)
    if args.print_top:
        kernels = sorted(kernels, key=lambda kernel: -kernel.seconds)[: args.print_top]
    if args.json:
        document = _document(results, times, args.outputs)
        rows = [{**kernel.to_json(), "share": kernel.seconds / total} for kernel in kernels]
        console.print_json({**document, **({"profile": rows} if args.profile else {})})
    else:
        _print(results, times)
        _print_profile(kernels, total)
    return 0


def _data(package: Package, args: argparse.Namespace) -> dict[str, Array]:
    from tvm_qat.cli.arrays import read_npz

    given = read_npz(args.inputs) if args.inputs else {}
    mode = args.fill_mode or ("random" if not args.inputs else None)
    if mode is None:
        return given
    filled = package.random_inputs()
    if mode != "random":
        filled = {name: np.full_like(array, mode == "ones") for name, array in filled.items()}
    return {**filled, **given}


def _document(results: dict[str, Array], times: Times | None, path: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "outputs": {
            name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in results.items()
        },
        "written": path,
    }
    if times is not None:
        document["seconds"] = {**times.summary(), "all": times}
    return document


def _print(results: dict[str, Array], times: Times | None) -> None:
    out = console.out()
    rows = [
        (name, str(list(array.shape)), str(array.dtype), _preview(array)) for name, array in results.items()
    ]
    columns = [("output", "left"), ("shape", "left"), ("dtype", "left"), ("first values", "left")]
    out.print(console.table(None, columns, rows))
    if times is not None:
        summary = times.summary()
        headers = [(f"{name} (ms)", "right") for name in summary]
        out.print(console.table(None, headers, [[f"{1000 * value:.4f}" for value in summary.values()]]))


def _print_profile(kernels: list[KernelTime], total: float) -> None:
    if not kernels:
        return
    rows = [
        (kernel.name, kernel.kernel, f"{1e6 * kernel.seconds:.1f}", f"{kernel.seconds / total:.1%}",
         "" if kernel.gops is None else f"{kernel.gops:.1f}")
        for kernel in kernels
    ]  # fmt: skip
    columns = [
        ("layer", "left"), ("kernel", "left"), ("us", "right"), ("share", "right"), ("GOPS", "right"),
    ]  # fmt: skip
    console.out().print(console.table(None, columns, rows))


def _preview(array: Array) -> str:
    shown = " ".join(f"{value:g}" for value in array.reshape(-1)[:5])
    return shown + (" ..." if array.size > 5 else "")
