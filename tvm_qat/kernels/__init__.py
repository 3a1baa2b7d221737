"""qnn to TensorIR for one Target. `lower` replaces the dialect, `finish` does the rest."""

from tvm_qat.kernels.build import build_passes, finish
from tvm_qat.kernels.islands import gather_islands
from tvm_qat.kernels.lower import kernel_calls, lower
from tvm_qat.kernels.one_call import without_schedule
from tvm_qat.kernels.sources import ISA, KERNEL, PLACES, SOURCES, TVM, chosen_kernels
from tvm_qat.kernels.table import KERNELS, KernelRow, choose, instruction_of

__all__ = [
    "ISA", "KERNEL", "KERNELS", "PLACES", "SOURCES", "TVM", "KernelRow", "build_passes", "choose",
    "chosen_kernels", "finish", "gather_islands", "instruction_of", "kernel_calls", "lower",
    "without_schedule",
]  # fmt: skip
