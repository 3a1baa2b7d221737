"""Compiles quantization-aware-trained models to integer code with Apache TVM.

The names below are loaded when they are first used, so that `import tvm_qat` costs nothing and
TVM can call `tvm_qat.plugin` while it is itself being imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tvm_qat.version import __version__

if TYPE_CHECKING:
    from tvm_qat.compiler import compile, inspect
    from tvm_qat.errors import (
        InputError,
        MissingDependencyError,
        PackageError,
        TvmQatError,
        UnsupportedError,
    )
    from tvm_qat.exchange import export_float_model, export_qparams
    from tvm_qat.html_report import write_report
    from tvm_qat.importers import import_model
    from tvm_qat.package import Package, TensorInfo, load
    from tvm_qat.qparams import QParams
    from tvm_qat.report import Layer, Report
    from tvm_qat.verification import Verification, verify

_HOME = {
    "compile": "compiler", "inspect": "compiler",
    "InputError": "errors", "MissingDependencyError": "errors", "PackageError": "errors",
    "TvmQatError": "errors", "UnsupportedError": "errors",
    "export_float_model": "exchange", "export_qparams": "exchange",
    "write_report": "html_report",
    "import_model": "importers",
    "Package": "package", "TensorInfo": "package", "load": "package",
    "QParams": "qparams",
    "Layer": "report", "Report": "report",
    "Verification": "verification", "verify": "verification",
}  # fmt: skip

__all__ = [
    "InputError",
    "Layer",
    "MissingDependencyError",
    "Package",
    "PackageError",
    "QParams",
    "Report",
    "TensorInfo",
    "TvmQatError",
    "UnsupportedError",
    "Verification",
    "__version__",
    "compile",
    "export_float_model",
    "export_qparams",
    "import_model",
    "inspect",
    "load",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tvm_qat' has no attribute {name!r}")
    value = getattr(import_module(f"tvm_qat.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
