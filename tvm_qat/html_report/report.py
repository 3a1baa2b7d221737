"""From a verification to the file: times the kernels, gathers, writes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tvm_qat.bench.layers import Profile, profile
from tvm_qat.errors import InputError
from tvm_qat.html_report.document import document_of
from tvm_qat.html_report.page import page_of
from tvm_qat.package.files import check_writable, write_atomically, write_npz
from tvm_qat.verification import Subject, Verification


def write_report(found: Verification, path: str | os.PathLike[str], *, times: bool = True) -> None:
    """Write what `verify` returned as one HTML file; `path` is whole or untouched.

    times : also measure each kernel, on one core and in a process of its own. Raises InputError if
    the file cannot be written, or if `found` was not made by `verify`.
    """
    check_writable(path)
    if found.subject is None:
        raise InputError("a report needs what verify returned: this was put together without a model")
    measured = _measured(found.subject) if times else None
    write_atomically(path, page_of(document_of(found, found.subject, measured)).encode())


def _measured(subject: Subject) -> Profile:
    with tempfile.TemporaryDirectory(prefix="tvm-qat-") as folder:
        package, inputs = Path(folder) / "model.tar", Path(folder) / "inputs.npz"
        subject.package.save(package)
        write_npz(inputs, subject.inputs)
        return profile(package, str(inputs), threads=1)
