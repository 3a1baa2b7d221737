"""Reads what torch.export.save wrote, after a look at everything in it that could run code.

torch.export.load trusts its file. It unpickles weights, constants and example inputs that are not
plain tensors, loads compiled libraries, gives the text of symbolic sizes to sympy, which evaluates
it as Python, and imports modules that tree specifications name. Without `trust`, an archive that
holds any of this is refused before torch reads it; what is left is JSON and raw tensors.
The checks read the archive with torch's own reader, so that both see the same records.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any
from zipfile import BadZipFile

import torch
from torch._export.verifier import SpecViolationError

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.options import require

_RECORDS = re.compile(
    r"models/model\.json|data/(weights|constants)/(weight_\d+|tensor_\d+|model_\w+_config\.json)"
    r"|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|version|\.data/.*|extra/.*"
)
_TARGET = re.compile(r"torch\.ops\.[A-Za-z]\w*\.\w+(\.\w+)?|_operator\.[a-z]+")
_SIZE = re.compile(
    r"(?:\s|\d+(?:\.\d+)?|[-+*/(),<>=]|(?:s|u|zuf|zf)\d+"
    r"|Symbol\('(?:s|u|zuf|zf)\d+'(?:, (?:positive|nonnegative|integer)=True)*\)"
    r"|Integer|Add|Mul|Pow|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Max|Min|Mod|FloorDiv|CeilDiv|PythonMod|True|False)*"
)
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_ERRORS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError,
    EOFError, BadZipFile, SpecViolationError,
)  # fmt: skip
"""What torch's deserializer raises on damaged files: it takes their structure for granted."""


def load_archive(data: bytes, file: str, trust: bool) -> Any:
    """The torch.export.ExportedProgram in the bytes of a `.pt2` file."""
    if not data:
        raise InputError(located("the file is empty", file=file, remedy="copy or export it again"))
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    except (RuntimeError, ValueError):
        reason = "is no archive of torch.export.save, or is truncated"
        raise InputError(located(reason, file=file, remedy="copy or export it again")) from None
    logged = _Logged()
    try:
        _import_operators(reader)
        if not trust:
            _check(reader)
        with logged, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(data))
    except InputError as error:
        raise type(error)(located(str(error), file=file)) from None
    except _ERRORS as error:
        cause = logged.error or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        reason = f"torch.export cannot load it: {lines[-1].strip()[:200]}"
        raise InputError(located(reason, file=file, remedy="export it again")) from None


class _Logged(logging.Filter):
    """Keeps what torch.export.load logs with its trace before it tries a format of the past."""

    error: BaseException | None = None
    _logger = logging.getLogger("torch.export")

    def filter(self, record: logging.LogRecord) -> bool:
        self.error = self.error or (record.exc_info[1] if record.exc_info else None)
        return False

    def __enter__(self) -> None:
        self._logger.addFilter(self)

    def __exit__(self, *_exception: object) -> None:
        self._logger.removeFilter(self)


def _import_operators(reader: Any) -> None:
    """Operators outside of torch itself exist once the module that defines them is loaded."""
    record = "models/model.json"
    model = reader.get_record(record) if reader.has_record(record) else b""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if b"quantized_decomposed" in model:
            import torch.ao.quantization.fx._decomposed  # noqa: F401
        if b"torch.ops.torchao" in model:
            require("torch", "torchao")
            import torchao.quantization  # noqa: F401


def _check(reader: Any) -> None:
    """Raises InputError for whatever needs the user's trust, or is damaged."""
    records = reader.get_all_records()
    if "models/model.json" not in records:
        raise InputError("it holds no program of the format that torch 2.9 to 2.13 write; save it again")
    for record in records:
        if not _RECORDS.fullmatch(record):
            raise _untrusted(f"it holds {record!r}, which may be code")
    model = _json(reader, "models/model.json")
    for key, value in _entries(model):
        _check_entry(key, value)
    for kind in ("weights", "constants"):
        _check_tensors(reader, kind, set(records))
    _check_example(reader)


def _untrusted(what: str) -> InputError:
    return InputError(f"{what}; loading it could run code: if you made the file, pass --trust (trust=True)")


def _json(reader: Any, record: str) -> Any:
    try:
        return json.loads(reader.get_record(record))
    except (ValueError, RuntimeError, RecursionError):
        raise InputError(f"record {record} is missing or damaged; copy or export it again") from None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object below `value`, with what it holds."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_entry(key: str, value: Any) -> None:
    if key == "target" and isinstance(value, str) and value.startswith(("torch.", "math", "#", "_operator")):
        if not _TARGET.fullmatch(value):
            raise _untrusted(f"it calls {value!r}")
    elif key == "expr_str" and not _is_size(value):
        raise _untrusted(f"it writes a size as {str(value)[:80]!r}")
    elif key == "range_constraints" and not all(map(_is_size, value or ())):
        raise _untrusted("it names a size in an unusual way")
    elif key in ("in_spec", "out_spec"):
        _check_tree(value)
    elif key in ("custom_obj_values", "treespec_namedtuple_fields") and value:
        raise UnsupportedError("objects of other types than tensors are not supported")


def _is_size(text: Any) -> bool:
    return isinstance(text, str) and len(text) < 1000 and _SIZE.fullmatch(text) is not None


def _check_tree(text: Any) -> None:
    """Inputs and outputs may be nested in tuples, lists and dictionaries."""
    try:
        tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise InputError("its tree of inputs or outputs is damaged; export it again") from None
    for key, value in _entries(tree):
        if key == "type" and value not in _TREES:
            raise _untrusted(f"its inputs or outputs are of type {value!r}")


def _check_tensors(reader: Any, kind: str, records: set[str]) -> None:
    """Plain tensors no larger than the bytes that hold them."""
    config = _json(reader, f"data/{kind}/model_{kind}_config.json").get("config", {})
    for name, entry in config.items():
        path = f"data/{kind}/{entry.get('path_name')}"
        if entry.get("use_pickle") or not path.rpartition("/")[2].startswith(("weight_", "tensor_")):
            raise _untrusted(f"tensor {name!r} is pickled")
        if path not in records:
            raise InputError(f"tensor {name!r} is missing; copy or export it again")
        sizes = [size.get("as_int", 0) for size in entry["tensor_meta"]["sizes"]]
        if math.prod(sizes) > reader.get_record_size(path):
            raise InputError(f"tensor {name!r} of shape {sizes} is larger than its data; export it again")


def _check_example(reader: Any) -> None:
    """Example inputs are a pickle, which torch reads without restriction if it fails with them."""
    data = reader.get_record("data/sample_inputs/model.pt")
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (*_ERRORS, torch.serialization.pickle.UnpicklingError):
        raise _untrusted("its example inputs are more than tensors") from None
