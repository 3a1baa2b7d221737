"""Functions of one tensor, element by element, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.aten.types import cast, is_float
from tvm_qat.importers.torch.node import Node, is_tensor
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, array_of, const, is_const, relax


def plain(function: Callable[[Expr], Expr]) -> Callable[[Writer, Node], Expr]:
    """The converter of an operator that is one Relax operator."""
    return lambda _write, node: function(node.tensor("self"))


def of_reals(function: Callable[[Expr], Expr]) -> Callable[[Writer, Node], Expr]:
    """The same for functions that turn integers to floats first."""

    def convert(write: Writer, node: Node) -> Expr:
        data = node.tensor("self")
        return function(data if is_float(node.dtype("self")) else cast(write, data, "float32"))

    return convert


def clamp(write: Writer, node: Node) -> Expr:
    """clamp, clamp_min, clamp_max, hardtanh: bounds are numbers, None, or tensors."""
    low, high = _bound(node, "min"), _bound(node, "max")
    data = node.tensor("self")
    if is_tensor(low):
        data, low = write(relax.op.maximum(data, low)), -math.inf
    if is_tensor(high):
        data, high = write(relax.op.minimum(data, high)), math.inf
    return data if (low, high) == (-math.inf, math.inf) else relax.op.clip(data, low, high)


def _bound(node: Node, which: str) -> Any:
    value = node.args.get(which, node.args.get(f"{which}_val"))
    return (-math.inf if which == "min" else math.inf) if value is None else value


def relu6(_write: Writer, node: Node) -> Expr:
    return relax.op.clip(node.tensor("self"), 0.0, 6.0)


def _like(node: Node, value: float) -> Expr:
    return const(np.asarray(value), node.dtype("self"))


def hardsigmoid(write: Writer, node: Node) -> Expr:
    """clip(x + 3, 0, 6) / 6."""
    shifted = write(relax.op.add(node.tensor("self"), _like(node, 3)))
    return relax.op.divide(write(relax.op.clip(shifted, 0.0, 6.0)), _like(node, 6))


def hardswish(write: Writer, node: Node) -> Expr:
    """x * hardsigmoid(x)."""
    return relax.op.multiply(node.tensor("self"), write(hardsigmoid(write, node)))


def gelu(_write: Writer, node: Node) -> Expr:
    approximate = node.args.get("approximate", "none")
    function = relax.op.nn.gelu_tanh if approximate == "tanh" else relax.op.nn.gelu
    return function(node.tensor("self"))


def leaky_relu(_write: Writer, node: Node) -> Expr:
    return relax.op.nn.leakyrelu(node.tensor("self"), node.real("negative_slope", 0.01))


def prelu(_write: Writer, node: Node) -> Expr:
    """One slope, or one per channel (dimension 1)."""
    rank = len(node.shape("self"))
    weight = node.tensor("weight")
    if is_const(weight) and array_of(weight).size == 1:
        return relax.op.nn.leakyrelu(node.tensor("self"), float(array_of(weight).reshape(-1)[0]))
    return relax.op.nn.prelu(node.tensor("self"), weight, 1 if rank > 1 else 0)


def elu(write: Writer, node: Node) -> Expr:
    """where(x > 0, x, alpha * (exp(x) - 1))."""
    if node.real("scale", 1) != 1 or node.real("input_scale", 1) != 1:
        raise UnsupportedError("scales other than 1 are not supported")
    data = node.tensor("self")
    negative = write(relax.op.subtract(write(relax.op.exp(data)), _like(node, 1)))
    scaled = write(relax.op.multiply(negative, _like(node, node.real("alpha", 1))))
    return relax.op.where(write(relax.op.greater(data, _like(node, 0))), data, scaled)


def softplus(_write: Writer, node: Node) -> Expr:
    beta, threshold = node.real("beta", 1), node.real("threshold", 20)
    return relax.op.nn.softplus(node.tensor("self"), beta=beta, threshold=threshold)


def mish(write: Writer, node: Node) -> Expr:
    """x * tanh(softplus(x))."""
    data = node.tensor("self")
    soft = write(relax.op.nn.softplus(data))
    return relax.op.multiply(data, write(relax.op.tanh(soft)))


def softmax(write: Writer, node: Node) -> Expr:
    return relax.op.nn.softmax(*_rows(write, node))


def log_softmax(write: Writer, node: Node) -> Expr:
    return relax.op.nn.log_softmax(*_rows(write, node))


def _rows(write: Writer, node: Node) -> tuple[Expr, int]:
    data = node.tensor("self")
    if node.has("dtype"):
        data = cast(write, data, node.args["dtype"])
    return data, node.axis("dim", len(node.shape("self")))


def reciprocal(_write: Writer, node: Node) -> Expr:
    return relax.op.divide(_like(node, 1), node.tensor("self"))


def log1p(write: Writer, node: Node) -> Expr:
    return relax.op.log(write(relax.op.add(node.tensor("self"), _like(node, 1))))


def round_(_write: Writer, node: Node) -> Expr:
    """To nearest, ties to even."""
    if node.whole("decimals", 0):
        raise UnsupportedError("rounding to decimals is not supported")
    return relax.op.round(node.tensor("self"))
