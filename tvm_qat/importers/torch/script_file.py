"""What a `.pt` or `.pth` file holds, found without running any of it, and how a TorchScript one is loaded.

torch.load runs whatever a pickle names, unless weights_only restricts it. torch.jit.load is another
thing: its C++ unpickler (torch/csrc/jit/serialization/unpickler.cpp, readGlobal) makes tensors,
lists and objects of classes that the archive itself defines, and runs their `__setstate__`, which is
TorchScript: no Python. TorchScript computes with tensors and numbers; what reaches outside of that
are the few operators below, and classes of loaded libraries. An archive whose code names one is
loaded only if it is trusted.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Any

from tvm_qat.errors import DAMAGED_ZIP, InputError, located

_MOST_CODE = 64 << 20
_OUTSIDE = ("save", "from_file", "getattr", "fork", "rpc_async", "rpc_sync", "rpc_remote")
"""Operators that write or map files or start threads, and the word by which others could be spelled."""
_NAMESPACES = ("aten", "prim", "quantized", "_quantized", "prepacked")
_WORD = re.compile(r"(?<!\w)(?:" + "|".join(_OUTSIDE) + r")(?!\w)")
_OPERATOR = re.compile(r"(?<!\w)ops\s*\.\s*(\w+)")
_CLASS = re.compile(r"(?<!\w)torch\s*\.\s*classes\s*\.\s*(\w+)")


def kind_of(source: Path | bytes) -> str:
    """`script` (torch.jit.save), `pickle` (torch.save), `exported` (torch.export.save) or `other`.

    Raises InputError for an archive that is cut off or damaged.
    """
    head = source[:2] if isinstance(source, bytes) else _head(source)
    if head != b"PK":
        return "pickle" if head[:1] == b"\x80" else "other"
    names = [_inner(name) for name in _archive(source).namelist()]
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "script"
    if "data.pkl" in names:
        return "pickle"
    exported = ("serialized_exported_program.json", "archive_format")
    return "exported" if any(n in exported or n.startswith("models/") for n in names) else "other"


def load_script(source: Path | bytes, file: str, trust: bool) -> Any:
    """The torch.jit.ScriptModule of an archive. Raises InputError for damaged or suspicious ones."""
    import torch

    _check_pickles(source, file)
    if not trust:
        _screen(source, file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript and quantized tensors are deprecated
            stream = io.BytesIO(source) if isinstance(source, bytes) else str(source)
            return torch.jit.load(stream, map_location="cpu")
    except (RuntimeError, ValueError, TypeError, EOFError, LookupError) as error:
        reason = f"is no TorchScript archive that torch can load: {first_line(error)}"
        raise InputError(located(reason, file=file)) from None


def load_pickle(source: Path | bytes, file: str, trust: bool) -> Any:
    """The object that torch.save wrote; anything but tensors in containers needs trust."""
    import pickle

    import torch

    stream = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        if trust or "weights_only" not in str(error).lower():
            raise InputError(located(f"cannot be unpickled: {first_line(error)}", file=file)) from None
        reason = "is a pickle of Python objects; loading it would run code that the file names"
        remedy = "torch.export.save it instead, or pass --trust if you made it"
        raise InputError(located(reason, file=file, remedy=remedy)) from None
    except (RuntimeError, ValueError, TypeError, EOFError, KeyError, AttributeError, ImportError) as error:
        raise InputError(located(f"cannot be unpickled: {first_line(error)}", file=file)) from None


def _check_pickles(source: Path | bytes, file: str) -> None:
    """torch's own unpickler makes room for the length that a string claims before it reads the string."""
    for name, content in _members(source, file, "", "pkl"):
        try:
            deque(pickletools.genops(content), maxlen=0)
        except ValueError as error:
            raise InputError(located(f"is damaged: {name}: {first_line(error)}", file=file)) from None


def _screen(source: Path | bytes, file: str) -> None:
    """Refuses code that names an operator or a class which reaches outside of tensors."""
    for name, content in _members(source, file, "code/", ".py"):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(located(f"is damaged: {name} is not text", file=file)) from None
        found = _WORD.search(text)
        if found:
            _refuse(f"its code ({name}) uses '{found.group()}'", file)
        for pattern, allowed, what in (
            (_OPERATOR, _NAMESPACES, "operators of"),
            (_CLASS, ("quantized",), "classes of"),
        ):
            for match in pattern.finditer(text):
                if match.group(1) not in allowed:
                    _refuse(f"its code ({name}) uses {what} '{match.group(1)}'", file)


def _refuse(reason: str, file: str) -> None:
    remedy = "pass --trust if you made the file"
    text = f"{reason}, which may do more than compute when the file is loaded"
    raise InputError(located(text, file=file, remedy=remedy))


def _members(source: Path | bytes, file: str, folder: str, suffix: str) -> list[tuple[str, bytes]]:
    archive = _archive(source)
    parts = [part for part in archive.infolist() if _inner(part.filename).startswith(folder)]
    parts = [part for part in parts if part.filename.endswith(suffix)]
    if sum(part.file_size for part in parts) > _MOST_CODE:
        raise InputError(located(f"its {suffix} files are larger than {_MOST_CODE >> 20} MB", file=file))
    try:
        return [(_inner(part.filename), archive.read(part)) for part in parts]
    except DAMAGED_ZIP as error:
        raise InputError(located(f"is damaged: {first_line(error)}", file=file)) from None


def _archive(source: Path | bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(_stream(source))
    except DAMAGED_ZIP as error:
        raise InputError(f"is a damaged zip archive: {first_line(error)}") from None


def _stream(source: Path | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(2)


def _inner(name: str) -> str:
    """A member's name below the archive's own folder, which is named after the file."""
    return "/".join(PurePosixPath(name).parts[1:])


def first_line(error: BaseException) -> str:
    """The line of a message of torch's that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
