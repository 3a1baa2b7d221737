"""What runs on integers, what stays in float, and why."""

from tvm_qat.report.layers import Layer, Report, report_of
from tvm_qat.report.removed import Removed
from tvm_qat.report.tensors import Tensor

__all__ = ["Layer", "Removed", "Report", "Tensor", "report_of"]
