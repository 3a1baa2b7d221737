"""What a caller may say about a model, and what an importer may need beyond the core packages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, TypedDict

from tvm_qat.errors import InputError, MissingDependencyError, located

Shapes: TypeAlias = Mapping[str, Sequence[int]]


class ImportKeywords(TypedDict, total=False):
    """The keywords of `import_model`, for functions that hand them on."""

    format: str | None
    input_shapes: Shapes | None
    encodings: str | os.PathLike[str] | None
    trust: bool
    params: str | os.PathLike[str] | None
    signature: str | None


@dataclass(frozen=True)
class ImportOptions:
    """The caller's word, the same for every format; a format that has no use for a field refuses it.

    input_shapes : shapes that replace those the model declares, by the name of the input.
    encodings : a file of quantization parameters to lay onto a float model.
    trust : whether code that the model file carries may run while it is read.
    params : a file of constants beside the model (Relay); `detect` refuses it for other formats.
    signature : which of several entry points to translate; by default the first.
    """

    input_shapes: Shapes = field(default_factory=dict)
    encodings: Path | None = None
    trust: bool = False
    params: Path | None = None
    signature: str | None = None


def require(extra: str, *modules: str, file: str | None = None) -> None:
    """Raises MissingDependencyError, with the pip command, unless all modules can be imported."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        reason = f"reading it needs the Python package {' and '.join(missing)}"
        remedy = f"pip install 'tvm-qat[{extra}]'"
        raise MissingDependencyError(located(reason, file=file, remedy=remedy))


def refuse_encodings(options: ImportOptions, what: str) -> None:
    """For formats that carry their own parameters."""
    if options.encodings is not None:
        reason = f"{what} takes no encodings file: it carries its own quantization"
        raise InputError(located(reason, remedy="leave out --encodings"))
