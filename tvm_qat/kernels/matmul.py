"""Products of matrices whose size is known at run time only, such as attention of any length.

Nothing is packed: lanes run along the columns of the second operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_qat.ir import shape_of
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb
from tvm_qat.kernels.elementwise import lanes_of
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.operands import Operands, Site, broadcast_index
from tvm_qat.kernels.reduction import Addends, reduce_sums
from tvm_qat.kernels.terms import run_time_parameter


def has_unknown_size(fused: Fused) -> bool:
    """Whether the inner length or the number of columns is symbolic."""
    weight = shape_of(fused.anchor.args[1])
    return weight is not None and len(fused.shape) > 1 and not all(isinstance(n, int) for n in weight[-2:])


def build_any_matmul(fused: Fused, target: Any) -> Kernel:
    """qnn.dense or qnn.batch_matmul of any size."""
    call, operands = fused.anchor, Operands()
    left, right = operands.tensor(call.args[0]), operands.tensor(call.args[1])
    zeros = [run_time_parameter(call.args[i], operands) for i in (2, 3)]
    term = fused.term(operands)
    transposed = fused.op == "qnn.dense"

    def body(buffers: dict[str, Any], out: Any) -> None:
        x, y = buffers[left.name], buffers[right.name]
        zero_x, zero_y = (zero(Site(buffers, ())) for zero in zeros)

        def read(_data: Any, index: Sequence[PrimExpr], tap: Sequence[PrimExpr]) -> PrimExpr:
            *lead, row, column = index
            (k,) = tap
            place = (column, k) if transposed else broadcast_index(y.shape, (*lead, k, column))
            of_x = ex.cast(x[broadcast_index(x.shape, (*lead, row, k))], "int32")
            return (of_x - zero_x) * (ex.cast(y[place], "int32") - zero_y)

        def finish(index: Sequence[PrimExpr], total: PrimExpr) -> None:
            place = tuple(index)
            tb.buffer_store(out, term(Site(buffers, place, total)), list(place))

        products = Addends((x.shape[-1],), read)
        reduce_sums(products, x, out.shape, "int32", None, lanes_of(target) // 4, finish)

    return prim_func(fused.name, Symbols(), operands.all(), fused.shape, fused.dtype, body)
