"""qnn to TensorIR for one Target. `lower` replaces the dialect, `finish` does the rest."""

from tvm_qat.kernels.build import build_passes, finish
from tvm_qat.kernels.lower import ISA, KERNEL, SOURCES, chosen_kernels, kernel_calls, lower
from tvm_qat.kernels.one_call import without_schedule
from tvm_qat.kernels.table import KERNELS, KernelRow, choose

__all__ = [
    "ISA", "KERNEL", "KERNELS", "SOURCES", "KernelRow", "build_passes", "choose", "chosen_kernels",
    "finish", "kernel_calls", "lower", "without_schedule",
]  # fmt: skip
