"""Importers: a model file becomes an IRModule that still says what training said."""

from tvm_qat.importers.detect import import_model

__all__ = ["import_model"]
