"""The artifact: a tar of machine code and its description. Saved, checked, loaded and run."""

from tvm_qat.package.artifact import Package, load, read
from tvm_qat.package.meta import Meta, TensorInfo
from tvm_qat.package.profile import KernelTime
from tvm_qat.package.times import Times

__all__ = ["KernelTime", "Meta", "Package", "TensorInfo", "Times", "load", "read"]
