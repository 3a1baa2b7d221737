"""Compile a model to a package of integer code."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import tvm_qat as tq
from tvm_qat.cli import console, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model file")
    parser.add_argument("-o", "--output", metavar="TAR", required=True, help="the package to write")
    parser.add_argument(
        "--target", metavar="T", default="llvm",
        help='llvm (any machine of this architecture), native, or {"kind": "llvm", "mcpu": "znver4"}',
    )  # fmt: skip
    options.add_model_arguments(parser)
    parser.add_argument(
        "--dump-code", metavar="F,G", type=options.names, default=[],
        help="write texts beside the package: relax, tir, ll, asm, and ptx for a GPU",
    )  # fmt: skip
    parser.add_argument("--cross-compiler", metavar="C", help="command that links for another architecture")
    parser.add_argument(
        "--pass-config", metavar="K=V", type=options.key_value, action="append", default=[],
        help="an option of TVM's PassContext; may be repeated",
    )  # fmt: skip
    parser.add_argument("--print-pass-times", action="store_true", help="show how long each pass took")


def run(args: argparse.Namespace) -> int:
    from tvm_qat.package.files import write_atomically

    options.check_outputs(args, args.output)
    times: dict[str, float] = {}
    with console.progress() as show:
        package = tq.compile(
            args.model, args.target, **options.model_options(args),
            pass_config=dict(args.pass_config), cross_compiler=args.cross_compiler,
            dump=args.dump_code, progress=show, timings=times,
        )  # fmt: skip
    dumps = {form: f"{args.output}.{form}" for form in package.dumps}
    for form, path in dumps.items():
        write_atomically(path, package.dumps[form].encode())
    package.save(args.output)
    document = {
        "package": args.output,
        "bytes": os.path.getsize(args.output),
        "target": package.meta.target,
        "inputs": [info.to_json() for info in package.inputs],
        "outputs": [info.to_json() for info in package.outputs],
        "totals": package.totals,
        "seconds": times,
        "dumps": dumps,
    }
    plain = console.in_plain_loops(package.totals)
    if plain:
        print(f"target {args.target}: products run in {plain}", file=sys.stderr)
    if args.json:
        console.print_json(document)
    else:
        _print(document, args.print_pass_times)
    return 0


def _print(document: dict[str, Any], with_times: bool) -> None:
    out = console.out()
    if with_times:
        rows = [(name, f"{1000 * seconds:.1f}") for name, seconds in document["seconds"].items()]
        out.print(console.table(None, [("pass", "left"), ("ms", "right")], rows))
    share = document["totals"]["int8_mac_share"]
    size = console.in_bytes(document["bytes"])
    print(f"{document['package']}: {size}, {share:.1%} of the multiply-accumulates run on integers")
    for path in document["dumps"].values():
        print(f"{path}: written")
