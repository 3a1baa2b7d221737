"""Reads the text and the file of parameters beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_qat.errors import InputError, located
from tvm_qat.importers.relay.binary import Array, arrays_of_file
from tvm_qat.importers.relay.metadata import Metadata
from tvm_qat.importers.relay.parser import parse
from tvm_qat.importers.relay.syntax import Function

_REMEDY = "print the module again with mod.astext(show_meta_data=True)"


@dataclass(frozen=True)
class Model:
    """file : its name for messages. params : arrays by the name of a parameter of main."""

    file: str
    functions: dict[str, Function]
    metadata: Metadata
    params: dict[str, Array]


def load(source: Any, params: Path | None) -> Model:
    """source: a path, or the text as bytes or string."""
    file = source.name if isinstance(source, Path) else "model"
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        text = data.decode() if isinstance(data, bytes) else str(data)
    except UnicodeDecodeError:
        raise InputError(located("is not text (UTF-8)", file=file, remedy=_REMEDY)) from None
    try:
        program = parse(text)
        if "main" not in program.functions:
            raise InputError("has no function @main")
        metadata = Metadata(program.metadata)
    except InputError as error:
        raise type(error)(located(str(error), file=file, remedy=_REMEDY)) from None
    return Model(file, program.functions, metadata, _params(params))


def _params(path: Path | None) -> dict[str, Array]:
    if path is None:
        return {}
    try:
        return arrays_of_file(path.read_bytes())
    except InputError as error:
        remedy = "write it with tvm.runtime.save_param_dict"
        raise type(error)(located(str(error), file=path.name, remedy=remedy)) from None
