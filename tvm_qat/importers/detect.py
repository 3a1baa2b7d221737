"""Finds out which format a model has and hands it to that format's importer."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_qat.errors import InputError, located
from tvm_qat.importers.options import ImportOptions, Shapes
from tvm_qat.ir import IRModule


@dataclass(frozen=True)
class Format:
    """One row of FORMATS.

    suffixes : file name endings, lower case.
    starts : whether a file's first bytes look like this format.
    accepts : whether an object (not a path, not bytes) is a model of this format.
    load : (path, bytes or object, options) -> IRModule. Imports what the format needs only when
        called, so that `import tvm_qat` stays cheap and each format needs its own extra alone.
    has_params : whether its constants may lie in a file of their own (`import_model`'s params).
    has_signatures : whether a model can have several entry points.
    folder : whether a folder is a model of this format.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]
    accepts: Callable[[object], bool]
    load: Callable[[Any, ImportOptions], IRModule]
    has_params: bool = False
    has_signatures: bool = False
    folder: Callable[[Path], bool] = lambda _path: False


def _starts_as_onnx(head: bytes) -> bool:
    """Protobuf field 1 (ir_version) as a varint: how every exporter begins a ModelProto."""
    return len(head) > 1 and head[0] == 0x08 and head[1] < 0x80


def _is_onnx(model: object) -> bool:
    return type(model).__name__ == "ModelProto"


def _load_onnx(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.onnx import import_onnx

    return import_onnx(source, options)


def _starts_as_tflite(head: bytes) -> bool:
    return head[4:8] == b"TFL3"


def _load_tflite(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.tflite import import_tflite

    return import_tflite(source, options)


def _starts_as_relay(head: bytes) -> bool:
    """The version that TVM prints first, and without which its parser reads nothing."""
    return head.lstrip().startswith(b"#[version")


def _load_relay(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.relay import import_relay

    return import_relay(source, options)


def _is_no_object(_model: object) -> bool:
    return False


def _starts_as_zip(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04")


def _is_torch(model: object) -> bool:
    """An ExportedProgram, a module, or a pair of a module and its example inputs."""
    model = model[0] if isinstance(model, tuple) and len(model) == 2 else model
    family = [cls for cls in type(model).__mro__ if cls.__module__.startswith("torch.")]
    return any(cls.__name__ in ("ExportedProgram", "Module") for cls in family)


def _load_torch(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.torch import import_torch

    return import_torch(source, options)


def _is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def _is_tensorflow(model: object) -> bool:
    """Keras models, functions and graphs: recognized by where their class is defined."""
    roots = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    return bool(roots & {"tensorflow", "keras", "tf_keras"})


def _load_tensorflow(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.tensorflow import import_tensorflow

    return import_tensorflow(source, options)


def _is_torchscript(model: object) -> bool:
    """A ScriptModule, or a module that torch.ao converted: it holds packed weights."""
    family = [cls for cls in type(model).__mro__ if cls.__module__.startswith("torch.")]
    if any(cls.__name__ == "ScriptModule" for cls in family):
        return True
    parts = getattr(model, "modules", None) if any(cls.__name__ == "Module" for cls in family) else None
    return parts is not None and any(hasattr(part, "_packed_params") for part in parts())


def _starts_as_torchscript(head: bytes) -> bool:
    """A zip archive (exported programs are zip archives too: the importer looks inside), or a pickle."""
    return head.startswith((b"PK\x03\x04", b"\x80\x02"))


def _load_torchscript(source: Any, options: ImportOptions) -> IRModule:
    from tvm_qat.importers.torch.pt import import_pt

    return import_pt(source, options)


FORMATS = (
    # Before ONNX, whose files have no magic number: some flatbuffers begin like one of them.
    Format("tflite", (".tflite",), _starts_as_tflite, _is_no_object, _load_tflite, has_signatures=True),
    Format(
        "tensorflow",
        (".pb",),
        lambda _head: False,
        _is_tensorflow,
        _load_tensorflow,
        has_signatures=True,
        folder=_is_saved_model,
    ),
    # Before "torch": it looks into archives and hands exported programs on.
    Format("torchscript", (".pt", ".pth"), _starts_as_torchscript, _is_torchscript, _load_torchscript),
    Format("onnx", (".onnx",), _starts_as_onnx, _is_onnx, _load_onnx),
    Format("relay", (".relay", ".rly"), _starts_as_relay, _is_no_object, _load_relay, has_params=True),
    Format("torch", (".pt2",), _starts_as_zip, _is_torch, _load_torch),
)


def import_model(
    source: object, *, format: str | None = None, input_shapes: Shapes | None = None,
    encodings: str | os.PathLike[str] | None = None, trust: bool = False,
    params: str | os.PathLike[str] | None = None,
    signature: str | None = None,
) -> IRModule:  # fmt: skip
    """Translate a model to Relax with the quantization that training put into it.

    Parameters
    ----------
    source : path of a model file or folder (SavedModel), its bytes, or the framework's own object:
        `onnx.ModelProto`, a Keras model or ConcreteFunction, `torch.export.ExportedProgram`,
        `torch.nn.Module` (input_shapes give its inputs, as float32), or a pair of a module and a
        tuple of example inputs.
    format : a name of FORMATS; by default found from the object's type or the file's suffix.
    input_shapes : shapes that replace those the model declares, by the name of the input.
    encodings : file of quantization parameters to lay onto a float model.
    trust : let code that the model file itself carries run while it is read. Leave it False for
        files that you did not make.
    params : file with the constants of a Relay text, as TVM's `save_param_dict` wrote it.
    signature : which of a model's entry points to translate, where it has several (TFLite: by
        default the first; SavedModel: `serving_default`).

    Returns
    -------
    A module whose function `main` takes the model's inputs in order, keeps the model's layout
    (NCHW for ONNX) and has the attributes `input_names` and `output_names`. Each binding's span
    names the model's node that it came from.

    Raises InputError for a damaged or contradictory model, UnsupportedError for operators and
    data types that have no translation; the message lists all of those at once.
    """
    checked = _checked_path(source) if isinstance(source, str | os.PathLike) else source
    row = _row(checked, format)
    if params is not None and not row.has_params:
        reason = f"a model of format {row.name} takes no file of parameters: it holds its own constants"
        raise InputError(located(reason, remedy="leave out --params"))
    if signature is not None and not row.has_signatures:
        reason = f"a model of format {row.name} has one entry point, so it takes no signature"
        raise InputError(located(reason, remedy="leave out --signature"))
    beside, constants = (None if path is None else _checked_path(path) for path in (encodings, params))
    return row.load(checked, ImportOptions(input_shapes or {}, beside, trust, constants, signature))


def _row(source: object, name: str | None) -> Format:
    known = ", ".join(row.name for row in FORMATS)
    for row in FORMATS:
        if row.name == name:
            return row
    if name is not None:
        raise InputError(located(f"format {name!r} is not known", remedy=f"use one of: {known}"))
    for row in FORMATS:
        if isinstance(source, Path) and (row.folder(source) or source.suffix.lower() in row.suffixes):
            return row
    head = _head(source)
    for row in FORMATS:
        if row.accepts(source) if head is None else row.starts(head):
            return row
    what = str(source) if isinstance(source, Path) else f"an object of type {type(source).__name__}"
    raise InputError(located(f"the format of {what} is not recognized", remedy=f"name one of: {known}"))


def _head(source: object) -> bytes | None:
    """The first bytes of a file or of bytes; None for an object."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return stream.read(16)
    return source[:16] if isinstance(source, bytes) else None


def _checked_path(source: str | os.PathLike[str]) -> Path:
    """A regular file that can be read, or the folder of a format that has some; a pipe would hang."""
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and any(row.folder(path) for row in FORMATS):
            return path
        if stat.S_ISREG(mode):
            path.open("rb").close()
            return path
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(located(f"cannot be read: {reason}", file=str(path))) from None
    raise InputError(located("is not a regular file", file=str(path), remedy="name the model file"))
