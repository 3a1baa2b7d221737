"""Reductions over axes, and what normalizes by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.tflite.node import Node
from tvm_qat.ir import Expr, const, relax


def reduction(function: Callable[..., Expr]) -> Callable[[Node], Expr]:
    """MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD: the axes are the second input."""

    def convert(node: Node) -> Expr:
        axes = node.axes(node.numbers(1), len(node.shape(0)))
        keep = bool(node.options("ReducerOptions").KeepDims())
        if not axes:
            return node.result(node.real(0))
        return node.result(node.write(function(node.real(0), axis=axes, keepdims=keep)))

    return convert


def extreme(function: Any, options: str) -> Callable[[Node], Expr]:
    """ARG_MAX and ARG_MIN: integers of the type that the file gives the result."""

    def convert(node: Node) -> Expr:
        node.options(options)
        axes = node.axes(node.numbers(1), len(node.shape(0)))
        if len(axes) != 1:
            raise UnsupportedError("it needs one axis")
        found = node.write(function(node.real(0), axis=axes[0]))
        return relax.op.astype(found, node.outputs[0].dtype)

    return convert


def softmax(node: Node) -> Expr:
    """softmax(beta * x) over the last axis."""
    beta = float(node.options("SoftmaxOptions").Beta())
    data = node.real(0)
    if beta != 1.0:
        data = node.write(relax.op.multiply(data, const(np.float32(beta))))
    return node.result(node.write(relax.op.nn.softmax(data, axis=len(node.shape(0)) - 1)))


def log_softmax(node: Node) -> Expr:
    return node.result(node.write(relax.op.nn.log_softmax(node.real(0), axis=len(node.shape(0)) - 1)))


def l2_normalization(node: Node) -> Expr:
    """x / sqrt(max(sum(x^2), 1e-6)) over the last axis."""
    data, activation = node.real(0), node.options("L2NormOptions").FusedActivationFunction()
    square = node.write(relax.op.multiply(data, data))
    total = node.write(relax.op.sum(square, axis=[len(node.shape(0)) - 1], keepdims=True))
    kept = node.write(relax.op.maximum(total, const(np.float32(1e-6))))
    return node.result(node.write(relax.op.divide(data, node.write(relax.op.sqrt(kept)))), activation)
