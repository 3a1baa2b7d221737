"""The kernel of max_pool2d on NHWC: channels across lanes, no padded copy.

A window that reaches over the border reads the nearest pixel inside instead, which belongs to the
window already and so cannot change its greatest value.
"""

from __future__ import annotations

from typing import Any

from tvm_qat.ir import Expr, attrs_of, dtype_of, op_name, shape_of, tvm
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb
from tvm_qat.kernels.elementwise import lanes_of, segment
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import loops, plain_shape, worth_threads
from tvm_qat.kernels.operands import Operands

_tir = tvm.tirx

_DTYPES = ("int8", "uint8", "int16", "int32", "float32")
_MOST_TAPS = 64


def is_max_pool(call: Expr) -> bool:
    """Whether this kernel can run `call`: NHWC, no dilation, every window holds a pixel."""
    if op_name(call) != "relax.nn.max_pool2d" or dtype_of(call) not in _DTYPES:
        return False
    attrs, shape = attrs_of(call), shape_of(call.args[0])
    top, left, bottom, right = attrs["padding"]
    height, width = attrs["pool_size"]
    return (
        str(attrs["layout"]) == str(attrs["out_layout"]) == "NHWC"
        and shape is not None
        and isinstance(shape[3], int)
        and list(attrs["dilation"]) == [1, 1]
        and not attrs["ceil_mode"]
        and max(top, bottom) < height
        and max(left, right) < width
        and height * width <= _MOST_TAPS
    )


def build_max_pool(fused: Fused, target: Any) -> Kernel:
    """All taps of a window in one expression, so that LLVM keeps the greatest value in registers."""
    attrs, operands = attrs_of(fused.anchor), Operands()
    data = operands.tensor(fused.anchor.args[0])
    (height, width), strides, before = attrs["pool_size"], attrs["strides"], attrs["padding"][:2]
    lanes = lanes_of(target)

    def body(buffers: dict[str, Any], out: Any) -> None:
        source = buffers[data.name]
        rows, columns = plain_shape(source)[1:3]
        batch, high, wide, channels = plain_shape(out)

        def inside(at: PrimExpr, axis: int, tap: int, size: Any) -> PrimExpr:
            return _tir.max(0, _tir.min(at * strides[axis] + (tap - before[axis]), size - 1))

        with loops((batch, high), worth_threads((batch, high, wide, channels))) as (n, y):
            with loops((wide,)) as (x,):
                at = [inside(y, 0, tap, rows) for tap in range(height)]
                across = [inside(x, 1, tap, columns) for tap in range(width)]

                def store(c: PrimExpr) -> None:
                    greatest = source[n, at[0], across[0], c]
                    for i in range(1, height * width):
                        greatest = _tir.max(greatest, source[n, at[i // width], across[i % width], c])
                    tb.buffer_store(out, greatest, [n, y, x, c])

                segment(store, 0, channels, lanes)

    return prim_func(fused.name, Symbols(), operands.all(), fused.shape, fused.dtype, body)
