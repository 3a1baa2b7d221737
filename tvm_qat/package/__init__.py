"""The artifact: a tar of machine code and its description. Saved, checked, loaded and run."""

from tvm_qat.package.artifact import Package, load
from tvm_qat.package.meta import Meta, TensorInfo

__all__ = ["Meta", "Package", "TensorInfo", "load"]
