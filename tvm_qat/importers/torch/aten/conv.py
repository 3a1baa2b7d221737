"""Convolutions, in torch's layout: channels second, weights OIHW (transposed ones IOHW)."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, array_of, const, is_const, relax

_LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW"), 3: ("NCDHW", "OIDHW", "IODHW")}
_PLAIN = (relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d)
_TRANSPOSED = (relax.op.nn.conv1d_transpose, relax.op.nn.conv2d_transpose, relax.op.nn.conv3d_transpose)


def conv(write: Writer, node: Node) -> Expr:
    """conv1d, conv2d, conv3d; padding may be "same" or "valid"."""
    return _convolved(write, node, _padding(node))


def convolution(write: Writer, node: Node) -> Expr:
    """The general form: plain or transposed, any rank."""
    if node.flag("transposed"):
        return conv_transpose(write, node)
    return _convolved(write, node, _symmetric(node))


def conv_transpose(write: Writer, node: Node) -> Expr:
    rank = _spatial_rank(node)
    result = _TRANSPOSED[rank - 1](
        node.tensor("input"), node.tensor("weight"), padding=_symmetric(node),
        output_padding=node.wholes("output_padding", rank), data_layout=_LAYOUTS[rank][0],
        kernel_layout=_LAYOUTS[rank][2], **_steps(node, rank),
    )  # fmt: skip
    return _with_bias(write, node, result, rank)


def _convolved(write: Writer, node: Node, padding: list[int]) -> Expr:
    rank = _spatial_rank(node)
    data, kernel, _ = _LAYOUTS[rank]
    result = _PLAIN[rank - 1](
        node.tensor("input"), node.tensor("weight"), padding=padding, data_layout=data,
        kernel_layout=kernel, **_steps(node, rank),
    )  # fmt: skip
    return _with_bias(write, node, result, rank)


def _spatial_rank(node: Node) -> int:
    rank = len(node.shape("weight")) - 2
    if rank not in _LAYOUTS:
        raise UnsupportedError(f"a weight of rank {rank + 2} is not supported")
    if len(node.shape("input")) != rank + 2:
        raise UnsupportedError("data without a batch dimension is not supported; add one")
    return rank


def _steps(node: Node, rank: int) -> dict[str, Any]:
    return {
        "strides": node.wholes("stride", rank),
        "dilation": node.wholes("dilation", rank),
        "groups": node.whole("groups"),
    }


def _symmetric(node: Node) -> list[int]:
    return node.wholes("padding", _spatial_rank(node)) * 2


def _padding(node: Node) -> list[int]:
    """[begin..., end...]; "same" puts an odd one at the end, as torch does."""
    mode = node.args["padding"]
    if not isinstance(mode, str):
        return _symmetric(node)
    rank = _spatial_rank(node)
    if mode == "valid":
        return [0] * (2 * rank)
    if mode != "same":
        raise InputError(f"padding {mode!r} is not known")
    kernel = node.fixed_shape("weight")[2:]
    total = [step * (size - 1) for step, size in zip(node.wholes("dilation", rank), kernel, strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def _with_bias(write: Writer, node: Node, result: Expr, rank: int) -> Expr:
    bias = node.optional("bias")
    if bias is None:
        return result
    shape = (1, -1, *[1] * rank)
    spread = const(array_of(bias).reshape(shape)) if is_const(bias) else relax.op.reshape(bias, shape)
    return relax.op.add(write(result), write(spread))
