"""Functions of values one by one, with TFLite's broadcasting, which is NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tflite.node import Node
from tvm_qat.ir import Expr, const, relax

Converter = Callable[[Node], Expr]


def binary(function: Callable[[Expr, Expr], Expr], options: str | None = None) -> Converter:
    """options: the type that holds a fused activation, where the operator can have one."""

    def convert(node: Node) -> Expr:
        activation = node.options(options).FusedActivationFunction() if options else 0
        return node.result(node.write(function(node.real(0), node.real(1))), activation)

    return convert


def unary(function: Callable[[Expr], Expr]) -> Converter:
    def convert(node: Node) -> Expr:
        return node.result(node.write(function(node.real(0))))

    return convert


def activation(which: int) -> Converter:
    """RELU and its kin as operators of their own: one of ActivationFunctionType."""

    def convert(node: Node) -> Expr:
        return node.result(node.real(0), which)

    return convert


def relu_0_to_1(node: Node) -> Expr:
    return node.result(node.write(relax.op.clip(node.real(0), 0.0, 1.0)))


def leaky_relu(node: Node) -> Expr:
    slope = float(node.options("LeakyReluOptions").Alpha())
    return node.result(node.write(relax.op.nn.leakyrelu(node.real(0), slope)))


def prelu(node: Node) -> Expr:
    """max(x, 0) + slope * min(x, 0), the slopes broadcasting."""
    data, slope = node.real(0), node.real(1)
    shape = node.shape(1)
    if int(np.prod(shape)) == 1 or (shape[-1] == int(np.prod(shape)) and shape[-1] == node.shape(0)[-1]):
        flat = node.write(relax.op.reshape(slope, (int(np.prod(shape)),)))
        axis = len(node.shape(0)) - 1
        return node.result(node.write(relax.op.nn.prelu(data, flat, axis)))
    zero = const(np.float32(0))
    below = node.write(relax.op.multiply(node.write(relax.op.minimum(data, zero)), slope))
    return node.result(node.write(relax.op.add(node.write(relax.op.nn.relu(data)), below)))


def elu(node: Node) -> Expr:
    """x, or exp(x) - 1 below zero."""
    data = node.real(0)
    below = node.write(relax.op.minimum(data, const(np.float32(0))))
    grown = node.write(relax.op.subtract(node.write(relax.op.exp(below)), const(np.float32(1))))
    positive = node.write(relax.op.maximum(data, const(np.float32(0))))
    return node.result(node.write(relax.op.add(positive, grown)))


def hard_swish(node: Node) -> Expr:
    """x * relu6(x + 3) / 6."""
    data = node.real(0)
    shifted = node.write(relax.op.add(data, const(np.float32(3))))
    gate = node.write(relax.op.clip(shifted, 0.0, 6.0))
    product = node.write(relax.op.multiply(data, gate))
    return node.result(node.write(relax.op.multiply(product, const(np.float32(1 / 6)))))


def gelu(node: Node) -> Expr:
    near = node.options("GeluOptions").Approximate()
    function: Any = relax.op.nn.gelu_tanh if near else relax.op.nn.gelu
    return node.result(node.write(function(node.real(0))))


def squared_difference(node: Node) -> Expr:
    gap = node.write(relax.op.subtract(node.real(0), node.real(1)))
    return node.result(node.write(relax.op.multiply(gap, gap)))


def add_n(node: Node) -> Expr:
    total = node.real(0)
    for index in range(1, len(node.operands)):
        total = node.write(relax.op.add(total, node.real(index)))
    return node.result(total)


def comparison(function: Callable[[Expr, Expr], Expr]) -> Converter:
    """Booleans, of real numbers."""

    def convert(node: Node) -> Expr:
        return function(node.real(0), node.real(1))

    return convert


def select(node: Node) -> Expr:
    """One of two tensors, by a condition."""
    return node.result(node.write(relax.op.where(node.stored(0), node.real(1), node.real(2))))


def cast(node: Node) -> Expr:
    """The stored numbers, quantized or not, as another type."""
    target = node.outputs[0]
    if target.params is not None or node.params(0) is not None:
        raise UnsupportedError("a cast of quantized numbers is not supported; use QUANTIZE and DEQUANTIZE")
    if target.dtype == "resource":
        raise InputError("its result has no element type")
    return relax.op.astype(node.stored(0), target.dtype)
