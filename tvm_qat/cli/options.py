"""Flags that several verbs share, and how their values are read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_qat.errors import InputError, located

if TYPE_CHECKING:
    from tvm_qat.importers.options import ImportKeywords
    from tvm_qat.options import ModelKeywords

_SHAPE = re.compile(r"([^\s\[\],][^\[\]]*?)\s*:\s*\[([^\[\]]*)\]")


_READ = ("model", "package", "module", "inputs", "labels", "encodings", "params", "config")


def check_outputs(args: argparse.Namespace, *written: str | None) -> None:
    """Every file to write can be written, is none that the call reads, and is named once.

    Raises InputError; None is passed over.
    """
    from tvm_qat.package.files import check_writable

    given = [getattr(args, name, None) for name in _READ]
    taken = {Path(path).resolve() for path in given if isinstance(path, str)}
    for path in filter(None, written):
        check_writable(path)
        if Path(path).resolve() in taken:
            reason = "the same call reads it or writes something else there"
            raise InputError(located(reason, file=path, remedy="choose another file"))
        taken.add(Path(path).resolve())


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of every verb that reads a model file."""
    parser.add_argument("--model-format", metavar="F", help="format of the model; found out by default")
    parser.add_argument(
        "--input-shapes", metavar="S", type=shapes, default={},
        help='shapes by input name: "x:[1,3,224,224] y:[1,10]"',
    )  # fmt: skip
    parser.add_argument(
        "--encodings", metavar="FILE", help="quantization parameters to lay onto a float model"
    )
    parser.add_argument(
        "--params", metavar="FILE", help="constants of a Relay text, as TVM's save_param_dict wrote them"
    )
    parser.add_argument(
        "--trust", action="store_true",
        help="let code that the model file carries run while it is read: only for files of your own",
    )  # fmt: skip
    parser.add_argument("--signature", metavar="S", help="entry point of a model that has several")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of every verb that runs the passes on a model file."""
    add_import_arguments(parser)
    parser.add_argument("--rounding", metavar="P", help="profile of the requantize arithmetic")
    parser.add_argument("--disabled-pass", metavar="A,B", type=names, default=[], help="passes to leave out")
    parser.add_argument(
        "--keep-float", metavar="NODE", nargs="+", action="extend", default=[],
        help="nodes of the model that stay in float, by name or pattern (block1/*)",
    )  # fmt: skip
    parser.add_argument(
        "--only-int8", metavar="OP", nargs="+", action="extend", default=[],
        help="operators, as the model's format calls them, that run on integers; all others stay in float",
    )  # fmt: skip
    parser.add_argument(
        "--config", metavar="FILE",
        help="TOML or JSON with rounding, disabled_passes, keep_float, only_int8; flags take their place",
    )  # fmt: skip


def import_options(args: argparse.Namespace) -> ImportKeywords:
    """What the flags of import say, as keywords of `tvm_qat.import_model`."""
    return {
        "format": args.model_format,
        "input_shapes": args.input_shapes,
        "encodings": args.encodings,
        "trust": args.trust,
        "params": args.params,
        "signature": args.signature,
    }


def model_options(args: argparse.Namespace) -> ModelKeywords:
    """What all of those flags say, as keywords of `tvm_qat.compile` and `tvm_qat.inspect`."""
    return {
        **import_options(args),
        "rounding": args.rounding,
        "disabled_passes": args.disabled_pass,
        "keep_float": args.keep_float,
        "only_int8": args.only_int8,
        "config": args.config,
    }


def shapes(text: str) -> dict[str, list[int]]:
    """`x:[1,3,224,224] y:[1,10]`, with commas or spaces between the inputs."""
    found = {}
    rest = _SHAPE.sub("", text)
    if rest.strip(" ,;"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name:[1,2,3]")
    for name, sizes in _SHAPE.findall(text):
        found[name.strip(" ,;")] = [_size(size, text) for size in sizes.split(",") if size.strip()]
    return found


def _size(text: str, whole: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text.strip()!r} in {whole!r} is not a size")
    return int(text)


def names(text: str) -> list[str]:
    """`a,b,c`"""
    return [name.strip() for name in text.split(",") if name.strip()]


def key_value(text: str) -> tuple[str, Any]:
    """`relax.some.option=true`; numbers and booleans are read as such."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    if value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    return key, int(value) if value.lstrip("-").isdigit() else value


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)
