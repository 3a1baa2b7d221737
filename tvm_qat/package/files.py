"""Writing a file whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, located


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """`data` under `path`: written beside it, flushed to disk, then renamed over it.

    A reader sees the old file or the new one, never a part. Raises InputError where the folder
    is missing or cannot be written.
    """
    target = Path(path)
    check_writable(target)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise _refusal(target, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise _refusal(target, error) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """The arrays by their names, whatever these are: numpy.savez takes some for options of its own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    write_atomically(path, buffer.getvalue())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse an output path before the work that fills it."""
    target = Path(path)
    if target.is_dir():
        raise InputError(located("is a folder", file=str(target), remedy="name a file to write"))
    if not target.parent.is_dir():
        remedy = f"create the folder {target.parent} first"
        raise InputError(
            located("cannot be written: its folder does not exist", file=str(target), remedy=remedy)
        )
    if not os.access(target.parent, os.W_OK):
        raise InputError(located("cannot be written: its folder is read-only", file=str(target)))


def _refusal(target: Path, error: OSError) -> InputError:
    return InputError(located(f"cannot be written: {error.strerror or error}", file=str(target)))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
