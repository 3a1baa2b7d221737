"""Arithmetic and activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import Expr, const, relax

Converter = Callable[[Node], Expr]


def unary(function: Callable[[Expr], Expr]) -> Converter:
    return lambda node: function(node.tensor(0))


def binary(function: Callable[[Expr, Expr], Expr]) -> Converter:
    return lambda node: function(node.tensor(0), node.tensor(1))


def number(node: Node, value: float) -> Expr:
    return const(np.asarray(value), node.dtype(0))


def leaky_relu(node: Node) -> Expr:
    return relax.op.nn.leakyrelu(node.tensor(0), node.real("alpha", 0.2))


def elu(node: Node) -> Expr:
    """x above zero, exp(x) - 1 below."""
    x, zero = node.tensor(0), number(node, 0)
    below = node.write(relax.op.exp(node.write(relax.op.minimum(x, zero))))
    negative = node.write(relax.op.subtract(below, number(node, 1)))
    return relax.op.add(node.write(relax.op.maximum(x, zero)), negative)


def erfc(node: Node) -> Expr:
    """1 - erf(x)."""
    return relax.op.subtract(number(node, 1), node.write(relax.op.erf(node.tensor(0))))


def softplus(node: Node) -> Expr:
    return relax.op.nn.softplus(node.tensor(0))


def squared_difference(node: Node) -> Expr:
    return relax.op.square(node.write(relax.op.subtract(node.tensor(0), node.tensor(1))))


def reciprocal(node: Node) -> Expr:
    return relax.op.divide(number(node, 1), node.tensor(0))


def add_all(node: Node) -> Expr:
    return reduce(lambda x, y: node.write(relax.op.add(x, y)), node.tensors())


def softmax(node: Node) -> Expr:
    return relax.op.nn.softmax(node.tensor(0), -1)


def log_softmax(node: Node) -> Expr:
    return relax.op.nn.log_softmax(node.tensor(0), -1)


def select(node: Node) -> Expr:
    """SelectV2 broadcasts as NumPy does."""
    return relax.op.where(*node.tensors(3))


def cast(node: Node) -> Expr:
    return relax.op.astype(node.tensor(0), node.type("DstT"))


def matmul(node: Node) -> Expr:
    """MatMul has transpose_a and transpose_b, BatchMatMulV2 adj_x and adj_y."""
    operands = []
    for index, names in enumerate((("transpose_a", "adj_x"), ("transpose_b", "adj_y"))):
        operand, rank = node.tensor(index), len(node.shape(index))
        if any(node.flag(name) for name in names):
            order = [*range(rank - 2), rank - 1, rank - 2]
            operand = node.write(relax.op.permute_dims(operand, order))
        operands.append(operand)
    return relax.op.matmul(*operands)


def einsum(node: Node) -> Expr:
    return relax.op.einsum(node.tensors(), node.text("equation", ""))
