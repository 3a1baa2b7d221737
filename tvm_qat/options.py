"""What a caller may say about a model and the passes: by keywords, on the command line, or in a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from tvm_qat.errors import InputError, located
from tvm_qat.fixed_point import REQUANTIZE_ROUNDINGS
from tvm_qat.importers.options import ImportKeywords


class PassKeywords(TypedDict, total=False):
    """Keywords of `compile`, `inspect` and whatever else runs the passes; see Options."""

    rounding: str | None
    disabled_passes: Sequence[str]
    keep_float: Sequence[str]
    only_int8: Sequence[str]
    config: str | os.PathLike[str] | None


class ModelKeywords(ImportKeywords, PassKeywords, total=False):
    """Both, for functions that hand them on."""


@dataclass(frozen=True)
class Options:
    """rounding : arithmetic of every requantize, one of fixed_point.REQUANTIZE_ROUNDINGS.

    disabled_passes : names of passes to leave out. keep_float : nodes of the model that stay in float,
    by name or pattern. only_int8 : operators that run on integers, all others in float.
    """

    rounding: str = "half_even"
    disabled_passes: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    only_int8: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rounding not in REQUANTIZE_ROUNDINGS:
            known = ", ".join(REQUANTIZE_ROUNDINGS)
            raise InputError(f"rounding {self.rounding!r} is not known; choose from {known}")


def split(keywords: ModelKeywords) -> tuple[ImportKeywords, Options]:
    """(what the importer is told, the options of the passes). Raises InputError."""
    passes = PassKeywords.__annotations__
    imports = {name: value for name, value in keywords.items() if name not in passes}
    own = {name: value for name, value in keywords.items() if name in passes}
    return cast(ImportKeywords, imports), options_of(cast(PassKeywords, own))


def options_of(keywords: PassKeywords) -> Options:
    """The options of the file `config`, if there is one; what other keywords say takes their place.

    Raises InputError.
    """
    config = keywords.get("config")
    base = read_config(config) if config is not None else Options()
    given = {name: value for name, value in keywords.items() if name != "config" and value}
    return replace(base, **{name: _plain(value) for name, value in given.items()})


def read_config(path: str | os.PathLike[str]) -> Options:
    """The options in a TOML or JSON file: a table with the fields of Options, all of them optional."""
    document = _document(Path(path))
    names = {field.name for field in fields(Options)}
    for name, value in document.items():
        if name not in names:
            reason = f"has {name!r}, which is no option"
            raise InputError(located(reason, file=str(path), remedy=f"use {', '.join(sorted(names))}"))
        wanted = "a text" if name == "rounding" else "a list of texts"
        texts = [value] if name == "rounding" else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(located(f"{name} is not {wanted}", file=str(path)))
    try:
        return Options(**{name: _plain(value) for name, value in document.items()})
    except InputError as error:
        raise InputError(located(str(error), file=str(path))) from None


def _document(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        document = _toml(text, path) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(located(f"cannot be read: {error.strerror or error}", file=str(path))) from None
    except (ValueError, RecursionError) as error:
        raise InputError(located(f"is malformed: {error}", file=str(path))) from None
    if not isinstance(document, dict):
        raise InputError(located("does not hold a table of options", file=str(path)))
    return document


def _toml(text: str, path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib.loads(text)
    remedy = "write it as JSON, or use Python 3.11"
    raise InputError(located("TOML is read from Python 3.11 on", file=str(path), remedy=remedy))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else tuple(value)
