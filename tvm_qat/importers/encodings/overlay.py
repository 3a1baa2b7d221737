"""Encodings laid onto the tensors they name, while an importer translates the model.

An importer hands over every value right where it is defined, under the name it has in the model:

    value = overlay.lay(write, "conv1_out", value)

What comes back is fake-quantized if there is an encoding, and every reader reads that. So an
encoding holds from the exact tensor that it names on: a second name of the same tensor (behind
an Identity) inherits it, and adds its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tvm_qat.errors import InputError, located
from tvm_qat.importers.encodings import fields
from tvm_qat.importers.encodings.versions import Encoding, listed
from tvm_qat.ir import Expr, dtype_of, shape_of, with_source
from tvm_qat.qnn import build

_SHOWN = 5
_UNKNOWN_SHOWN = 3


@dataclass(frozen=True)
class Overlay:
    """Encodings by the names of tensors; empty where no file was given.

    file : its name for messages. taken : the names that were laid, by the source of the bindings
    that they became.
    """

    entries: Mapping[str, Encoding] = field(default_factory=dict)
    file: str = ""
    taken: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def check_names(self, known: Collection[str]) -> None:
        """Raises InputError for names that the model does not have, with the closest it has."""
        unknown = [name for name in self.entries if name not in known]
        if not unknown:
            return
        shown = "; ".join(_suggested(name, known) for name in unknown[:_UNKNOWN_SHOWN])
        more = f"; and {len(unknown) - _UNKNOWN_SHOWN} more" if len(unknown) > _UNKNOWN_SHOWN else ""
        reason = f"the model has no tensor {shown}{more}"
        remedy = "use the model that was exported together with the encodings"
        raise InputError(located(reason, file=self.file, remedy=remedy))

    def lay(self, emit: Callable[[Expr], Expr], name: str, value: Expr, channel_axis: int = 0) -> Expr:
        """`value` fake-quantized by the encoding of the tensor `name`, or as it is if it has none.

        emit : binds a call to a variable. channel_axis : where the output channels lie if `value`
        is a weight, by the operator that reads it; for versions that do not say it themselves.
        """
        found = self.entries.get(name)
        if found is None or found.params is None:
            return value
        try:
            if not dtype_of(value).startswith(("float", "bfloat")):
                raise InputError(f"the tensor is {dtype_of(value) or 'no tensor'}, not float")
            axis = channel_axis if found.axis is None else found.axis
            params = found.params.with_(axis=axis).check_axis(shape_of(value) or ())
        except InputError as error:
            raise type(error)(_about(name, error, self.file)) from None
        source = f"{name}/quantize"
        self.taken[source] = name
        return emit(with_source(build.fake_quantize(value, params, found.rounding), source))

    def missing(self, names: Iterable[str]) -> str:
        """Why these tensors of one node are float: one clause, empty if all have encodings."""
        absent = [repr(name) for name in names if name not in self.entries]
        parts = [f"no encoding names {', '.join(absent[:_SHOWN])}"] if absent else []
        for name in names:
            found = self.entries.get(name)
            if found is not None and found.params is None:
                parts.append(f"the encoding of {name!r} is {found.kind}")
        return "; ".join(parts)


def read_encodings(path: Path | None, modules: bool = False) -> Overlay:
    """All encodings of a file, checked; raises InputError with file and tensor. modules : see `listed`."""
    if path is None:
        return Overlay()
    entries: dict[str, Encoding] = {}
    try:
        for name, read in listed(fields.document(path), modules):
            if name in entries:
                raise InputError(f"tensor {name!r} has two encodings")
            try:
                entries[name] = read()
            except InputError as error:
                raise type(error)(f"encoding of {name!r}: {error}") from None
    except InputError as error:
        raise type(error)(located(str(error), file=path.name)) from None
    return Overlay(entries, path.name)


def _about(name: str, error: InputError, file: str) -> str:
    return located(f"encoding of {name!r}: {error}", file=file)


def _suggested(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"{name!r} (closest: {', '.join(map(repr, close))})" if close else repr(name)
