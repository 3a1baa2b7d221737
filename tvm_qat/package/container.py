"""The tar around a package's members: one canonical form, so that equal content is equal bytes.

Reading accepts exactly what writing produces. The file is parsed, its members are checked, and
the tar is written again in memory: any difference (a changed header, bytes behind the end, a
link, a long name) means that the file was altered. Nothing is extracted here.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tvm_qat.errors import PackageError, located

META = "meta.json"
MEMBERS = (META, "mod.so", "lib0.o", "devc.o", "constants.o", "mod.ll", "mod.vm", "constants.bin")
"""Every name that may stand in a package, in the order of writing."""

SIZE_LIMIT = 4 << 30


def to_tar(members: Mapping[str, bytes]) -> bytes:
    """The members as a tar without times, owners or compression."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in MEMBERS:
            if name in members:
                info = tarfile.TarInfo(name)
                info.size = len(members[name])
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(members[name]))
    return buffer.getvalue()


def from_file(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The members of the package at `path`, after checking the form of the file.

    Raises PackageError for anything that `to_tar` would not have written.
    """
    file = str(path)
    raw = _read(Path(path))
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
            members = {info.name: _content(tar, info, file) for info in _infos(tar, file)}
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise PackageError(located(f"is not a package: {error}", file=file)) from None
    if META not in members:
        raise PackageError(located(f"is not a package: it holds no {META}", file=file))
    if to_tar(members) != raw:
        remedy = "compile the model again"
        raise PackageError(located("was altered or truncated after it was written", file=file, remedy=remedy))
    return members


def is_tar(path: str | os.PathLike[str]) -> bool:
    """Whether the file looks like a package rather than a model."""
    try:
        with open(path, "rb") as file:
            return file.read(512)[257:262] == b"ustar"
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise PackageError(located("is a folder, not a package", file=str(path)))
        if size > SIZE_LIMIT:
            raise PackageError(located(f"has {size} bytes, more than a package may have", file=str(path)))
        return path.read_bytes()
    except OSError as error:
        raise PackageError(located(f"cannot be read: {error.strerror or error}", file=str(path))) from None


def _infos(tar: tarfile.TarFile, file: str) -> list[tarfile.TarInfo]:
    infos = tar.getmembers()
    names = [info.name for info in infos]
    unknown = [name for name in names if name not in MEMBERS]
    if unknown:
        raise PackageError(located(f"holds a member that no package has: {unknown[0]!r}", file=file))
    if len(set(names)) != len(names):
        raise PackageError(located("holds a member twice", file=file))
    return infos


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, file: str) -> bytes:
    if not info.isreg() or info.issparse():
        raise PackageError(located(f"member {info.name!r} is not a plain file", file=file))
    reader = tar.extractfile(info)
    content = reader.read() if reader is not None else b""
    if len(content) != info.size:
        raise PackageError(located(f"is truncated in member {info.name!r}", file=file))
    return content
