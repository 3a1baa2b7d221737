"""Products of matrices."""

from __future__ import annotations

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, array_of, const, is_const, relax


def linear(write: Writer, node: Node) -> Expr:
    """input [..., K] times weight [N, K] transposed, plus bias [N]."""
    product = relax.op.matmul(node.tensor("input"), transposed(write, node.tensor("weight")))
    bias = node.optional("bias")
    return product if bias is None else relax.op.add(write(product), bias)


def transposed(write: Writer, weight: Expr) -> Expr:
    """A matrix with its two dimensions swapped."""
    if is_const(weight):
        return const(np.ascontiguousarray(array_of(weight).T))
    return write(relax.op.permute_dims(weight))


def matmul(_write: Writer, node: Node) -> Expr:
    """matmul, mm, bmm: the second operand is called `other` or `mat2`."""
    left = node.tensor("self")
    return relax.op.matmul(left, node.tensor("other" if node.has("other") else "mat2"))


def addmm(write: Writer, node: Node) -> Expr:
    """self + mat1 times mat2."""
    if node.real("beta", 1) != 1 or node.real("alpha", 1) != 1:
        raise UnsupportedError("alpha and beta other than 1 are not supported")
    product = relax.op.matmul(node.tensor("mat1"), node.tensor("mat2"))
    return relax.op.add(write(product), node.tensor("self"))
