"""Float functions of one tensor in NumPy, for tables of 256 entries.

Each maps float32 to float32, as the simulation computes it; a table holds one value for each
integer, so an error in the last bit can only move a tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.qnn.arithmetic import F32, Array

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


UNARY: dict[str, Callable[[Array], Array]] = {
    "relax.abs": np.abs,
    "relax.acos": np.arccos,
    "relax.acosh": np.arccosh,
    "relax.asin": np.arcsin,
    "relax.asinh": np.arcsinh,
    "relax.atan": np.arctan,
    "relax.atanh": np.arctanh,
    "relax.ceil": np.ceil,
    "relax.cos": np.cos,
    "relax.cosh": np.cosh,
    "relax.erf": _erf,
    "relax.exp": np.exp,
    "relax.floor": np.floor,
    "relax.log": np.log,
    "relax.negative": np.negative,
    "relax.round": np.rint,
    "relax.rsqrt": lambda x: 1 / np.sqrt(x),
    "relax.sigmoid": _sigmoid,
    "relax.sign": np.sign,
    "relax.sin": np.sin,
    "relax.sinh": np.sinh,
    "relax.sqrt": np.sqrt,
    "relax.square": np.square,
    "relax.tan": np.tan,
    "relax.tanh": np.tanh,
    "relax.trunc": np.trunc,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
    "relax.nn.silu": lambda x: x * _sigmoid(x),
}
"""Functions without attributes."""

WITH_ATTRIBUTES: dict[str, Callable[..., Array]] = {
    "relax.nn.leakyrelu": lambda x, alpha: np.where(x >= 0, x, x * alpha),
    "relax.nn.softplus": lambda x, beta, threshold: np.where(
        x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, threshold))) / beta
    ),
}

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.power": np.power,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}
"""With a constant of one element, or the same tensor on both sides, these are unary too."""


def apply(function: Callable[..., Any], *operands: Array, **attrs: Any) -> Array:
    """The function in float64, rounded once to float32; infinities and NaN pass through."""
    with np.errstate(all="ignore"):
        return np.asarray(function(*(o.astype(np.float64) for o in operands), **attrs)).astype(F32)
