"""What one half writes and the other reads: libraries, data, and a description of them in JSON.

A part is one library: `NAME.so.xz`, and `NAME.npz` with its expected outputs, and inputs where they are
stored. Large arrays are not stored but drawn again from their seeds, and may repeat themselves: element
`i` along an axis is element `i % n` of the `n` that are drawn or stored.

Neither TVM nor tvm_qat is imported here: the machine with the GPU has neither.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FILE = "gpu_check.json"
_FORMAT = 1
_WIDEST = 1 << 16


class Unreadable(Exception):
    """The folder is not what `--make` writes."""


@dataclass(frozen=True)
class Input:
    """One argument of a case: stored if `seed` is None, else drawn.

    distinct : shape of what is drawn. low, high : of integers, both included; floats are near normal.
    sha256 : of the whole array, so that another NumPy's numbers are not taken for a fault of the GPU.
    """

    shape: tuple[int, ...]
    dtype: str
    seed: int | None = None
    distinct: tuple[int, ...] = ()
    low: int = 0
    high: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Case:
    """One function of the library. outputs : shapes, to which the stored ones are repeated."""

    name: str
    function: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Part:
    """group : kernels, gemm, or the network's name. macs : of one run, or 0 if it is not to be timed.

    peer : arguments of the function of its group in `peers`, or None.
    """

    name: str
    group: str
    cases: tuple[Case, ...]
    macs: int = 0
    peer: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Description:
    """device : cuda or cpu. arch : what the code is for. versions : of what made it."""

    device: str
    arch: str
    versions: dict[str, str]
    parts: tuple[Part, ...]

    def write(self, folder: Path) -> None:
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def read(folder: Path) -> Description:
    """Raises Unreadable if the folder holds no description of this format."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if document.pop("format") != _FORMAT:
            raise Unreadable(f"{folder / FILE} is of another version of gpu_check; make it again")
        parts = tuple(_part(part) for part in document.pop("parts"))
        return Description(**document, parts=parts)
    except OSError as error:
        raise Unreadable(f"{folder / FILE}: {error.strerror}; write it with --make") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{folder / FILE} is malformed: {error!r}") from None


def _part(data: dict[str, Any]) -> Part:
    peer = data.pop("peer")
    cases = tuple(_case(case) for case in data.pop("cases"))
    return Part(**data, cases=cases, peer=None if peer is None else tuple(peer))


def _case(data: dict[str, Any]) -> Case:
    inputs = tuple(
        Input(**{**one, "shape": tuple(one["shape"]), "distinct": tuple(one["distinct"])})
        for one in data.pop("inputs")
    )
    return Case(**{**data, "inputs": inputs, "outputs": tuple(map(tuple, data["outputs"]))})


def drawn(shape: tuple[int, ...], dtype: str, seed: int, **options: Any) -> Input:
    """An input with its digest. options : distinct, low, high as in Input; 17 bits at most if left out."""
    if np.dtype(dtype).kind in "iu" and "high" not in options:
        limits = np.iinfo(dtype)
        options |= {"low": max(int(limits.min), -_WIDEST), "high": min(int(limits.max), _WIDEST)}
    options.setdefault("distinct", shape)
    made = Input(shape, dtype, seed, **options)
    return Input(shape, dtype, seed, **options, sha256=_digest(_draw(made)))


def array_of(one: Input, stored: Array | None = None) -> Array:
    """The argument itself. Raises Unreadable if it is not what it was where the outputs were made."""
    if one.seed is None:
        assert stored is not None
        return stored
    array = _draw(one)
    if _digest(array) != one.sha256:
        raise Unreadable(f"NumPy {np.__version__} draws other numbers from a seed than where this was made")
    return array


def repeated(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` over and over again along each axis."""
    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = array.take(np.arange(size) % array.shape[axis], axis)
    return array


def _draw(one: Input) -> Array:
    """From PCG64's own stream, which NumPy promises to keep; sums of four bytes are near normal."""
    count = int(np.prod(one.distinct, dtype=np.int64))
    raw = np.random.PCG64(one.seed).random_raw((count + 1) // 2 if one.dtype == "float32" else count)
    if one.dtype == "float32":
        sums = np.asarray(raw).view(np.int8)[: 4 * count].reshape(-1, 4).sum(1, dtype=np.int32)
        values = sums.astype(np.float32) / 128
    else:
        span = np.uint64(one.high - one.low + 1)
        values = ((np.asarray(raw) >> np.uint64(32)) % span).astype(np.int64) + one.low
    return repeated(values.astype(one.dtype).reshape(one.distinct), one.shape)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def store(folder: Path, part: Part, library: bytes, arrays: dict[str, Array]) -> None:
    """arrays : by `CASE.out0`, and `CASE.in0` for stored inputs."""
    (folder / f"{part.name}.so.xz").write_bytes(lzma.compress(library, preset=2))
    np.savez_compressed(folder / f"{part.name}.npz", **arrays)


def library_of(folder: Path, part: Part, to: Path) -> Path:
    """The library's file, unpacked to the folder `to`."""
    file = to / "mod.so"
    try:
        file.write_bytes(lzma.decompress((folder / f"{part.name}.so.xz").read_bytes()))
    except (OSError, lzma.LZMAError) as error:
        raise Unreadable(f"{folder / part.name}.so.xz cannot be read: {error}") from None
    return file


def chosen(parts: tuple[Part, ...], only: list[str]) -> tuple[Part, ...]:
    """Those whose name or group is among `only`; all if it is empty."""
    return tuple(part for part in parts if not only or {part.name, part.group} & set(only))
