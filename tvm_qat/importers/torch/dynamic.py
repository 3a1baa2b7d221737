"""torchao's parameters that are computed from the data as it comes: scale and zero point a token.

They stay arithmetic on floats, so that what multiplies by them stays in float too: the passes have
no integer form for one scale a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.aten.types import cast
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, const, relax


def choose_qparams(write: Writer, node: Node) -> list[Expr | None]:
    """torchao.choose_qparams_affine over whole last dimensions, as per-token quantization asks."""
    data, shape = node.tensor("input"), node.shape("input")
    blocks, kind = node.args["block_size"], node.args["mapping_type"]
    if node.dtype("input") != "float32" or not node.has("quant_min") or not node.has("quant_max"):
        raise UnsupportedError("parameters of float32 data with a stated range are supported only")
    if list(blocks[:-1]) != [1] * (len(shape) - 1) or blocks[-1] != shape[-1]:
        raise UnsupportedError(f"a block of {list(blocks)} of data of shape {list(shape)} is not supported")
    zero = const(np.float32(0))
    keep = node.flag("keepdim")
    low = write(relax.op.minimum(write(relax.op.min(data, -1, keep)), zero))
    high = write(relax.op.maximum(write(relax.op.max(data, -1, keep)), zero))
    qmin, qmax = node.real("quant_min"), node.real("quant_max")
    least = node.real("eps", float(np.finfo(np.float32).smallest_normal))
    if kind == "SYMMETRIC":
        high = write(relax.op.maximum(write(relax.op.negative(low)), high))
        scale = _divided(write, high, (qmax - qmin) / 2, least)
        middle = const(np.float32(int((qmax + qmin + 1) / 2)))
        zero_point = write(relax.op.add(write(relax.op.multiply(scale, zero)), middle))
    elif kind == "ASYMMETRIC":
        scale = _divided(write, write(relax.op.subtract(high, low)), qmax - qmin, least)
        steps = write(relax.op.round(write(relax.op.divide(low, scale))))
        shifted = write(relax.op.subtract(const(np.float32(qmin)), steps))
        zero_point = write(relax.op.clip(shifted, qmin, qmax))
    else:
        raise UnsupportedError(f"mapping {kind} is not supported")
    wanted = node.args.get("zero_point_dtype") or "int32"
    return [cast(write, scale, node.args.get("scale_dtype") or "float32"), cast(write, zero_point, wanted)]


def _divided(write: Writer, value: Expr, steps: float, least: float) -> Any:
    scale = write(relax.op.divide(value, const(np.float32(steps))))
    return write(relax.op.maximum(scale, const(np.float32(least))))
