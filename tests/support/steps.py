"""Modules of one input, written as a chain of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var


def module_of_steps(
    build: Callable[[Var], list[Any]], shape: tuple[Any, ...], dtype: str = "float32"
) -> IRModule:
    """main(x) : the first expression, then functions of the value before."""
    builder, x = BlockBuilder(), Var("x", TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            value, *steps = build(x)
            for step in steps:
                value = step(builder.emit(value))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return builder.get()
