"""Finds out which format a model has and hands it to that format's importer."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tvm_qat.errors import InputError, located
from tvm_qat.ir import IRModule

Shapes: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Format:
    """One row of FORMATS.

    suffixes : file name endings, lower case.
    starts : whether a file's first bytes look like this format.
    accepts : whether an object (not a path, not bytes) is a model of this format.
    load : (path, bytes or object, name for messages, input shapes) -> IRModule. Imports what the
        format needs only when called, so that `import tvm_qat` stays cheap.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]
    accepts: Callable[[object], bool]
    load: Callable[[Any, Shapes], IRModule]


def _starts_as_onnx(head: bytes) -> bool:
    """Protobuf field 1 (ir_version) as a varint: how every exporter begins a ModelProto."""
    return len(head) > 1 and head[0] == 0x08 and head[1] < 0x80


def _is_onnx(model: object) -> bool:
    return type(model).__name__ == "ModelProto"


def _load_onnx(source: Any, input_shapes: Shapes) -> IRModule:
    from tvm_qat.importers.onnx import import_onnx

    return import_onnx(source, input_shapes)


FORMATS = (Format("onnx", (".onnx",), _starts_as_onnx, _is_onnx, _load_onnx),)


def import_model(
    source: object, *, format: str | None = None, input_shapes: Shapes | None = None
) -> IRModule:
    """Translate a model to Relax with the quantization that training put into it.

    Parameters
    ----------
    source : path of a model file, its bytes, or the framework's own object (`onnx.ModelProto`).
    format : a name of FORMATS; by default found from the object's type or the file's suffix.
    input_shapes : shapes that replace those the model declares, by the name of the input.

    Returns
    -------
    A module whose function `main` takes the model's inputs in order, keeps the model's layout
    (NCHW for ONNX) and has the attributes `input_names` and `output_names`. Each binding's span
    names the model's node that it came from.

    Raises InputError for a damaged or contradictory model, UnsupportedError for operators and
    data types that have no translation; the message lists all of those at once.
    """
    checked = _checked_path(source) if isinstance(source, str | os.PathLike) else source
    return _row(checked, format).load(checked, input_shapes or {})


def _row(source: object, name: str | None) -> Format:
    known = ", ".join(row.name for row in FORMATS)
    for row in FORMATS:
        if row.name == name or (name is None and _matches(row, source)):
            return row
    if name is not None:
        raise InputError(located(f"format {name!r} is not known", remedy=f"use one of: {known}"))
    what = str(source) if isinstance(source, Path) else f"an object of type {type(source).__name__}"
    raise InputError(located(f"the format of {what} is not recognized", remedy=f"name one of: {known}"))


def _matches(row: Format, source: object) -> bool:
    """By suffix; else by the first bytes; objects by their type."""
    if isinstance(source, Path):
        if source.suffix.lower() in row.suffixes:
            return True
        with source.open("rb") as stream:
            return row.starts(stream.read(16))
    return row.starts(source[:16]) if isinstance(source, bytes) else row.accepts(source)


def _checked_path(source: str | os.PathLike[str]) -> Path:
    """A regular file that can be read: a pipe would hang, a folder has no content."""
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
            return path
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(located(f"cannot be read: {reason}", file=str(path))) from None
    raise InputError(located("is not a regular file", file=str(path), remedy="name the model file"))
