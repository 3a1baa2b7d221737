"""What runs on integers, what stays in float, and why."""

from tvm_qat.report.layers import Layer, Report, report_of

__all__ = ["Layer", "Report", "report_of"]
