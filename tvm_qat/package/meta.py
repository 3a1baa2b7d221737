"""`meta.json`: what a package says about itself, checked field by field when it is read.

Its `digest` is the sha256 of the rest of the document, and `members` holds the sha256 of every
other member, so that a change anywhere in a package is seen before anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes  # noqa: F401  (gives numpy the names of small floats and integers)
import numpy as np

from tvm_qat.errors import InputError, PackageError, located
from tvm_qat.package.target import Platform
from tvm_qat.qparams import QParams

SCHEMA = 3
T = TypeVar("T")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    shape : numbers, and for dimensions that are known at run time only their names.
    qparams : what the integers mean: of an integer tensor itself, or of the integers that a
        float tensor is turned into first (input) or was made of last (output).
    initial : of an input that carries a variable from one run to the next: what each element is
        at the beginning, and where the caller leaves the input out. None for every other tensor.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    qparams: QParams | None = None
    initial: int | float | None = None

    def to_json(self) -> dict[str, Any]:
        params = self.qparams.to_json() if self.qparams else None
        known = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "qparams": params}
        return known if self.initial is None else known | {"initial": self.initial}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorInfo:
        shape = tuple(_dimension(size) for size in data["shape"])
        params = QParams(**data["qparams"]) if data["qparams"] is not None else None
        initial = data.get("initial")
        if not (initial is None or isinstance(initial, int | float)):
            raise TypeError(f"initial is {initial!r}")
        return cls(_text(data["name"]), shape, str(np.dtype(_text(data["dtype"]))), params, initial)


@dataclass(frozen=True)
class Schedule:
    """What `tvm_qat_run` in the package's code does; see kernels.one_call.

    buffers : shape and dtype of each tensor that it takes after the inputs. steps : its kernels in order.
    """

    buffers: tuple[tuple[tuple[int, ...], str], ...]
    steps: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"buffers": [[list(shape), dtype] for shape, dtype in self.buffers], "steps": list(self.steps)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schedule:
        return cls(_each(_buffer, data["buffers"]), _each(_text, data["steps"]))


@dataclass(frozen=True)
class Meta:
    """target: TVM's JSON form; totals: the sums that `inspect` shows.

    kernels: for the symbol of each kernel the source nodes that it runs, in the order of its calls.
    tvm_kernels: the same for kernels that TVM wrote.
    schedule: None where the virtual machine calls the kernels, because shapes are known at run time.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    target: dict[str, Any]
    platform: Platform
    versions: dict[str, str]
    totals: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tvm_kernels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    schedule: Schedule | None = None


def to_bytes(meta: Meta, members: Mapping[str, bytes]) -> bytes:
    """The document for a package that holds `members`."""
    document = {
        "schema": SCHEMA,
        "inputs": [info.to_json() for info in meta.inputs],
        "outputs": [info.to_json() for info in meta.outputs],
        "target": meta.target,
        "platform": {"triple": meta.platform.triple, "features": list(meta.platform.features)},
        "versions": meta.versions,
        "totals": meta.totals,
        "kernels": {symbol: list(nodes) for symbol, nodes in meta.kernels.items()},
        "tvm_kernels": {symbol: list(nodes) for symbol, nodes in meta.tvm_kernels.items()},
        "schedule": meta.schedule.to_json() if meta.schedule else None,
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    return _canonical({**document, "digest": _digest(document)})


def from_bytes(raw: bytes, checksums: Mapping[str, str], file: str) -> Meta:
    """The checked description. checksums : sha256 of the other members. Raises PackageError."""
    document = _parse(raw, file)
    if document.get("schema") != SCHEMA:
        remedy = "compile the model again with this version of tvm_qat"
        reason = f"has schema {document.get('schema')}, this version reads {SCHEMA}"
        raise PackageError(located(reason, file=file, remedy=remedy))
    digest = document.pop("digest", None)
    if digest != _digest(document) or _canonical({**document, "digest": digest}) != raw:
        raise PackageError(located("was altered: meta.json does not match its digest", file=file))
    try:
        _check_members(document["members"], checksums, file)
        return Meta(
            _each(TensorInfo.from_json, document["inputs"]),
            _each(TensorInfo.from_json, document["outputs"]),
            dict(document["target"]),
            Platform(_text(document["platform"]["triple"]), _each(_text, document["platform"]["features"])),
            {_text(k): _text(v) for k, v in document["versions"].items()},
            dict(document["totals"]),
            {_text(k): _each(_text, v) for k, v in document["kernels"].items()},
            {_text(k): _each(_text, v) for k, v in document["tvm_kernels"].items()},
            Schedule.from_json(document["schedule"]) if document["schedule"] is not None else None,
        )
    except PackageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise PackageError(located(f"has a malformed meta.json: {error!r}", file=file)) from None


def _check_members(expected: Mapping[str, str], found: Mapping[str, str], file: str) -> None:
    if set(expected) != set(found):
        odd = ", ".join(sorted(set(expected) ^ set(found)))
        raise PackageError(located(f"does not hold what it lists: {odd}", file=file))
    for name, checksum in found.items():
        if checksum != expected[name]:
            raise PackageError(located(f"was altered: {name} does not match its sha256", file=file))


def _parse(raw: bytes, file: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PackageError(located(f"has a malformed description: {error}", file=file)) from None
    if not isinstance(document, dict):
        raise PackageError(located("has a malformed description", file=file))
    return document


def _canonical(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(document)).hexdigest()


def _each(read: Callable[[Any], T], items: Any) -> tuple[T, ...]:
    if not isinstance(items, list):
        raise TypeError("a list is missing")
    return tuple(read(item) for item in items)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _buffer(item: Any) -> tuple[tuple[int, ...], str]:
    shape, dtype = item
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise TypeError(f"{shape!r} is not a shape")
    return tuple(shape), str(np.dtype(_text(dtype)))


def _dimension(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise TypeError(f"{value!r} is not a dimension")
    return value
