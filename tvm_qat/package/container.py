"""The tar around a package's members: one canonical form, so that equal content is equal bytes.

Reading accepts exactly what writing produces. The file is parsed, and everything in it but the
members' content is compared with what would be written: any difference (a changed header, bytes
behind the end, a link, a long name) means that the file was altered. Nothing is extracted here, and
at no time is more of a package in memory than a chunk.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tvm_qat.errors import PackageError, located

META = "meta.json"
MEMBERS = (
    META, "layers.json", "mod.so", "lib0.o", "devc.o", "constants.o", "mod.ll", "mod.vm", "constants.bin"
)  # fmt: skip
"""Every name that may stand in a package, in the order of writing."""

SIZE_LIMIT = 4 << 30
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """Where a package on disk holds a member: `size` bytes from `start`; sha256 in hexadecimal."""

    file: Path
    start: int
    size: int
    sha256: str

    def read(self) -> bytes:
        """Raises PackageError if the file is no longer what was checked."""
        return b"".join(self._checked())

    def extract(self, path: Path) -> None:
        """Write the content to `path`; raises PackageError if the file is no longer what was checked."""
        with path.open("wb") as target:
            for chunk in self._checked():
                target.write(chunk)

    def _checked(self) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            with self.file.open("rb") as source:
                for chunk in _chunks(source, self.start, self.size):
                    digest.update(chunk)
                    yield chunk
        except OSError as error:
            raise _unreadable(self.file, error) from None
        if digest.hexdigest() != self.sha256:
            raise PackageError(located("was altered or replaced after it was loaded", file=str(self.file)))


def to_tar(members: Mapping[str, bytes]) -> bytes:
    """The members as a tar without times, owners or compression."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in MEMBERS:
            if name in members:
                tar.addfile(_info(name, len(members[name])), io.BytesIO(members[name]))
    return buffer.getvalue()


def from_file(path: str | os.PathLike[str]) -> dict[str, Member]:
    """The members of the package at `path`, after checking the form of the file.

    Raises PackageError for anything that `to_tar` would not have written.
    """
    place = Path(path)
    _check_size(place)
    try:
        with place.open("rb") as raw:
            members = _members(raw, place)
            altered = not _is_canonical(raw, members)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise PackageError(located(f"is not a package: {error}", file=str(path))) from None
    except OSError as error:
        raise _unreadable(place, error) from None
    if META not in members:
        raise PackageError(located(f"is not a package: it holds no {META}", file=str(path)))
    if altered:
        remedy = "compile the model again"
        reason = "was altered or truncated after it was written"
        raise PackageError(located(reason, file=str(path), remedy=remedy))
    return members


def is_tar(path: str | os.PathLike[str]) -> bool:
    """Whether the file looks like a package rather than a model."""
    try:
        with open(path, "rb") as file:
            return file.read(512)[257:262] == b"ustar"
    except OSError:
        return False


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None
    if path.is_dir():
        raise PackageError(located("is a folder, not a package", file=str(path)))
    if size > SIZE_LIMIT:
        raise PackageError(located(f"has {size} bytes, more than a package may have", file=str(path)))


def _unreadable(path: Path, error: OSError) -> PackageError:
    return PackageError(located(f"cannot be read: {error.strerror or error}", file=str(path)))


def _members(raw: BinaryIO, path: Path) -> dict[str, Member]:
    with tarfile.open(fileobj=raw, mode="r:") as tar:
        infos = tar.getmembers()
    names = [info.name for info in infos]
    unknown = [name for name in names if name not in MEMBERS]
    if unknown:
        raise PackageError(located(f"holds a member that no package has: {unknown[0]!r}", file=str(path)))
    if len(set(names)) != len(names):
        raise PackageError(located("holds a member twice", file=str(path)))
    return {info.name: _member(raw, info, path) for info in infos}


def _member(raw: BinaryIO, info: tarfile.TarInfo, path: Path) -> Member:
    if not info.isreg() or info.issparse():
        raise PackageError(located(f"member {info.name!r} is not a plain file", file=str(path)))
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(raw, info.offset_data, info.size):
        digest.update(chunk)
        size += len(chunk)
    if size != info.size:
        raise PackageError(located(f"is truncated in member {info.name!r}", file=str(path)))
    return Member(path, info.offset_data, size, digest.hexdigest())


def _is_canonical(raw: BinaryIO, members: Mapping[str, Member]) -> bool:
    """Whether all bytes outside the members' content are what `to_tar` writes."""
    end = 0
    for name in MEMBERS:
        if name in members:
            header = _info(name, members[name].size).tobuf(tarfile.USTAR_FORMAT)
            start = end + len(header)
            if members[name].start != start or b"".join(_chunks(raw, end, len(header))) != header:
                return False
            end = start + members[name].size
            padding = -end % tarfile.BLOCKSIZE
            if any(map(any, _chunks(raw, end, padding))):
                return False
            end += padding
    tail = 2 * tarfile.BLOCKSIZE
    tail += -(end + tail) % tarfile.RECORDSIZE
    return raw.seek(0, io.SEEK_END) == end + tail and not any(map(any, _chunks(raw, end, tail)))


def _chunks(raw: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    """The bytes from `start` on; fewer than `size` where the file ends before."""
    raw.seek(start)
    while size > 0 and (chunk := raw.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk
