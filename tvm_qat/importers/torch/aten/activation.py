"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, relax


def plain(function: Callable[[Expr], Expr]) -> Callable[[Writer, Node], Expr]:
    """The converter of an operator that is one Relax operator."""
    return lambda _write, node: function(node.tensor("self"))


def clamp(write: Writer, node: Node) -> Expr:
    """clamp, clamp_min, clamp_max, hardtanh, relu6: bounds are numbers, None, or tensors."""
    low, high = _bound(node, "min"), _bound(node, "max")
    data = node.tensor("self")
    if all(isinstance(bound, int | float) for bound in (low, high)):
        return relax.op.clip(data, low, high)
    for bound, function in ((low, relax.op.maximum), (high, relax.op.minimum)):
        if not isinstance(bound, int | float):
            data = write(function(data, bound))
        elif not math.isinf(bound):
            data = write(relax.op.clip(data, *((bound, math.inf) if bound is low else (-math.inf, bound))))
    return data


def _bound(node: Node, which: str) -> Any:
    value = node.args.get(which, node.args.get(f"{which}_val"))
    return (-math.inf if which == "min" else math.inf) if value is None else value


def relu6(_write: Writer, node: Node) -> Expr:
    return relax.op.clip(node.tensor("self"), 0.0, 6.0)
