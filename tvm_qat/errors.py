"""The exceptions of tvm_qat, and the one line a user reads.

Every message names place, reason and remedy. Exceptions that may be raised inside a TVM
callback lose their attributes when they cross TVM's foreign function interface, so every
fact stands in the message; the classes are registered, so that they survive the crossing.
"""

from __future__ import annotations

import zipfile
import zlib

import tvm_ffi

DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
"""What the standard library raises on damaged zip archives. Among the RuntimeErrors are a flipped bit
that asks for encryption, and NotImplementedError for a version or compression that does not exist."""


@tvm_ffi.register_error
class TvmQatError(Exception):
    """Base of all errors that tvm_qat raises on purpose."""

    exit_code = 1


@tvm_ffi.register_error
class InputError(TvmQatError):
    """The model, data or package that the user gave is at fault."""

    exit_code = 4


@tvm_ffi.register_error
class UnsupportedError(InputError):
    """The input is valid, but asks for something tvm_qat does not do."""


@tvm_ffi.register_error
class PackageError(InputError):
    """A package is truncated, altered, or made for another target or schema."""


@tvm_ffi.register_error
class MissingDependencyError(TvmQatError):
    """An optional Python package is needed; the message holds the pip command."""

    exit_code = 5


def located(
    reason: str, *, file: str | None = None, node: str | None = None, remedy: str | None = None
) -> str:
    """One line `file: node 'x': reason; remedy`, leaving out what is not known."""
    place = [part for part in (file, f"node {node}" if node else None) if part]
    line = ": ".join([*place, reason])
    line = f"{line}; {remedy}" if remedy else line
    return " ".join(line.split())
