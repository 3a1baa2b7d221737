"""Which kernel runs what: one table, read from the top; the first row that applies is taken.

A row for an instruction set goes above the plain row of the same operator and asks
`llvm_cpu_has_features` in `applies`, never the name of a processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.kernels.builder import Kernel
from tvm_qat.kernels.cuda import table as cuda
from tvm_qat.kernels.elementwise import build_concatenate, build_elementwise
from tvm_qat.kernels.float_terms import FLOAT_TERMS
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.isa import DOT_PRODUCTS, DotProduct
from tvm_qat.kernels.isa_arm import ARM_DOT_PRODUCTS
from tvm_qat.kernels.linear_build import build_linear
from tvm_qat.kernels.matmul import build_any_matmul, has_unknown_size
from tvm_qat.kernels.permuted import PERMUTE, build_permuted, has_permutation
from tvm_qat.kernels.pooling import build_max_pool
from tvm_qat.kernels.reduction import build_avg_pool, build_mean
from tvm_qat.kernels.rows import ROW_OPERATORS, build_rows, has_row_operator
from tvm_qat.kernels.softmax import build_softmax
from tvm_qat.kernels.suits_dot import suits_dot
from tvm_qat.qnn.table import OPS


def _any_llvm(_fused: Fused, target: Any) -> bool:
    return str(target.kind.name) == "llvm"


def _any_cuda(_fused: Fused, target: Any) -> bool:
    return cuda.is_cuda(target)


def _of_warps(fused: Fused, target: Any) -> bool:
    return cuda.is_cuda(target) and has_row_operator(fused)


def _of_unknown_size(fused: Fused, target: Any) -> bool:
    return _any_llvm(fused, target) and has_unknown_size(fused)


def _of_permuted(fused: Fused, target: Any) -> bool:
    return _any_llvm(fused, target) and has_permutation(fused)


def _of_rows(fused: Fused, target: Any) -> bool:
    return _any_llvm(fused, target) and has_row_operator(fused)


@dataclass(frozen=True)
class KernelRow:
    """name : of the kernel, as profiles and reports show it. ops : operators it is the kernel of.

    applies(fused, target) : whether shapes, dtypes and target allow it. build(fused, target) :
    makes it. isa : the instruction set it is written for.
    """

    name: str
    ops: tuple[str, ...]
    applies: Callable[[Fused, Any], bool]
    build: Callable[[Fused, Any], Kernel]
    isa: str = "generic"


def _of_kind(*kinds: str) -> tuple[str, ...]:
    return tuple(spec.name for spec in OPS.values() if spec.kind in kinds)


def _dot_row(isa: DotProduct) -> KernelRow:
    """Sums of products by one instruction set."""
    return KernelRow(
        "dot_linear", _of_kind("linear"),
        lambda fused, target: not has_unknown_size(fused) and isa.runs_on(target) and suits_dot(fused, isa),
        lambda fused, target: build_linear(fused, target, isa), isa.name,
    )  # fmt: skip


_ELEMENTWISE = (*_of_kind("pointwise", "boundary", "training"), *FLOAT_TERMS)


KERNELS: tuple[KernelRow, ...] = (
    *map(_dot_row, (*DOT_PRODUCTS, *ARM_DOT_PRODUCTS)),
    KernelRow("dp4a_few_rows", _of_kind("linear"), cuda.of_few_rows, cuda.build_thin_products, "dp4a"),
    KernelRow("mma_products", _of_kind("linear"), cuda.on_tensor_cores, cuda.build_products, "mma.sync"),
    KernelRow("dp4a_products", _of_kind("linear"), cuda.by_dp4a, cuda.build_dot_products, "dp4a"),
    KernelRow("dp4a_depthwise", _of_kind("linear"), cuda.of_depthwise, cuda.build_depthwise, "dp4a"),
    KernelRow("threads_sums", _of_kind("linear"), _any_cuda, cuda.build_plain_sums),
    KernelRow("threads_avg_pool", ("qnn.avg_pool",), _any_cuda, cuda.build_cuda_avg_pool),
    KernelRow("threads_mean", ("qnn.mean",), _any_cuda, cuda.build_cuda_mean),
    KernelRow("warp_softmax", ("qnn.softmax",), _any_cuda, cuda.build_cuda_softmax),
    KernelRow("threads_concatenate", ("qnn.concatenate",), _any_cuda, cuda.build_concatenate),
    KernelRow("threads_max_pool", ("relax.nn.max_pool2d",), _any_cuda, cuda.build_max_pool),
    KernelRow("warp_rows", _ELEMENTWISE + ROW_OPERATORS, _of_warps, cuda.build_cuda_rows),
    KernelRow("threads_elementwise", (*_ELEMENTWISE, PERMUTE), _any_cuda, cuda.build_elementwise),
    KernelRow("plain_any_matmul", ("qnn.dense", "qnn.batch_matmul"), _of_unknown_size, build_any_matmul),
    KernelRow("plain_linear", _of_kind("linear"), _any_llvm, build_linear),
    KernelRow("plain_avg_pool", ("qnn.avg_pool",), _any_llvm, build_avg_pool),
    KernelRow("plain_mean", ("qnn.mean",), _any_llvm, build_mean),
    KernelRow("plain_softmax", ("qnn.softmax",), _any_llvm, build_softmax),
    KernelRow("plain_concatenate", ("qnn.concatenate",), _any_llvm, build_concatenate),
    KernelRow("plain_max_pool", ("relax.nn.max_pool2d",), _any_llvm, build_max_pool),
    KernelRow("plain_rows", _ELEMENTWISE + ROW_OPERATORS, _of_rows, build_rows),
    KernelRow("plain_permuted", (*_ELEMENTWISE, PERMUTE), _of_permuted, build_permuted),
    KernelRow("plain_elementwise", _ELEMENTWISE, _any_llvm, build_elementwise),
)


def instruction_of(target: Any) -> str:
    """The instruction set by which sums of products run, of those whose row is above; "" for plain loops."""
    if cuda.is_cuda(target):
        return cuda.instruction_of(target)
    found = (isa.name for isa in (*DOT_PRODUCTS, *ARM_DOT_PRODUCTS) if isa.runs_on(target))
    return next(found, "")


def choose(fused: Fused, target: Any) -> KernelRow:
    """The first row that applies. Raises UnsupportedError where none does."""
    for row in KERNELS:
        if fused.op in row.ops and row.applies(fused, target):
            return row
    reason = f"no kernel of {fused.op} for target {target.kind.name}"
    raise UnsupportedError(located(reason, node=fused.source, remedy="compile for an llvm target"))
