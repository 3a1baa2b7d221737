"""Which kernel runs what on a GPU: read from the top, as `kernels.table`."""

from __future__ import annotations

from functools import partial
from typing import Any

from tvm_qat.kernels.cuda.plain_sums import build_plain_sums
from tvm_qat.kernels.cuda.pointwise import (
    build_concatenate,
    build_elementwise,
    build_max_pool,
    sum_on_threads,
)
from tvm_qat.kernels.cuda.products import (
    build_depthwise,
    build_dot_products,
    build_products,
    build_thin_products,
    suits_thin_products,
)
from tvm_qat.kernels.cuda.rows import each_row, rows_of_softmax
from tvm_qat.kernels.cuda.sums import suits_depthwise, suits_products
from tvm_qat.kernels.cuda.symbols import GpuSymbols
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.reduction import build_avg_pool, build_mean
from tvm_qat.kernels.rows import build_rows
from tvm_qat.kernels.softmax import build_softmax

CUDA = "cuda"
_LEAST_TENSOR_CORES = 80

build_cuda_avg_pool = partial(build_avg_pool, sums=sum_on_threads, symbols_of=GpuSymbols)
build_cuda_mean = partial(build_mean, sums=sum_on_threads, symbols_of=GpuSymbols)
build_cuda_softmax = partial(build_softmax, rows=rows_of_softmax, symbols_of=GpuSymbols)
build_cuda_rows = partial(build_rows, each_row=each_row, symbols_of=GpuSymbols)


def is_cuda(target: Any) -> bool:
    return str(target.kind.name) == CUDA


def instruction_of(target: Any) -> str:
    """What multiplies and adds bytes: tensor cores take 32 of them at once, and copies are asynchronous,
    from sm_80 on."""
    arch = "".join(filter(str.isdigit, str(target.attrs["arch"])))
    return "mma.sync" if int(arch) >= _LEAST_TENSOR_CORES else "dp4a"


def on_tensor_cores(fused: Fused, target: Any) -> bool:
    return is_cuda(target) and instruction_of(target) == "mma.sync" and suits_products(fused)


def by_dp4a(fused: Fused, target: Any) -> bool:
    return is_cuda(target) and suits_products(fused)


def of_few_rows(fused: Fused, target: Any) -> bool:
    return is_cuda(target) and suits_thin_products(fused)


def of_depthwise(fused: Fused, target: Any) -> bool:
    return is_cuda(target) and suits_depthwise(fused)


__all__ = [
    "CUDA", "build_concatenate", "build_cuda_avg_pool", "build_cuda_mean", "build_cuda_rows",
    "build_cuda_softmax", "build_depthwise", "build_dot_products", "build_elementwise", "build_max_pool",
    "build_plain_sums", "build_products", "build_thin_products", "by_dp4a", "instruction_of", "is_cuda",
    "of_depthwise", "of_few_rows", "on_tensor_cores",
]  # fmt: skip
