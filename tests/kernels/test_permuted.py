"""A transposition and what is elementwise around it are one kernel, exact in every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tvm_qat.ir import BlockBuilder, Expr, IRModule, TensorType, Var, const, relax, tvm
from tvm_qat.kernels import chosen_kernels, lower
from tvm_qat.qnn import build as q
from tvm_qat.qnn.arithmetic import quantize
from tvm_qat.qparams import QParams

_op = relax.op
OUTPUT = QParams(0.03, 7, "uint8")
CASES = (
    ((5, 6, 64), (1, 0, 2)), ((2, 19, 6, 64), (0, 2, 3, 1)), ((1, 3, 9, 33), (0, 2, 3, 1)),
    ((2, 2, 3, 16), (0, 2, 3, 1)), ((4, 21), (1, 0)), ((1, 4, 2, 40), (0, 2, 3, 1)),
    ((17, 65), (1, 0)), ((2, 131, 16), (0, 2, 1)), ((1, 7, 1), (2, 0, 1)), ((4, 3, 5, 6), (3, 1, 0, 2)),
)  # fmt: skip


def _module(shape: tuple[int, ...], axes: tuple[int, ...], late: bool) -> IRModule:
    """Quantize after the transposition, or `late`: before it, and an addition after it."""
    builder, x = BlockBuilder(), Var("x", TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            if late:
                result: Expr = _op.permute_dims(builder.emit(q.quantize(x, OUTPUT)), axes)
            else:
                moved = builder.emit(
                    _op.permute_dims(builder.emit(_op.multiply(x, const(np.float32(3)))), axes)
                )
                added = builder.emit(_op.add(moved, const(_offset(shape[axes[-1]]))))
                result = q.quantize(added, OUTPUT)
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.get()


def _offset(length: int) -> Any:
    return np.linspace(-1, 1, length).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
def test_values_and_places_are_exact(target: str) -> None:
    for shape, axes in CASES:
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for late in (False, True):
            moved = x.transpose(axes)
            real = moved if late else moved * np.float32(3) + _offset(shape[axes[-1]])
            mod = _module(shape, axes, late)
            have = compiled(mod, TARGETS[target])["main"](tvm.runtime.tensor(x)).numpy()
            assert np.array_equal(have, quantize(real, OUTPUT)), (shape, axes, late)


@pytest.mark.parametrize("late", [False, True])
def test_one_kernel_does_it_all(late: bool) -> None:
    rows = chosen_kernels(lower(_module((2, 3, 4), (0, 2, 1), late), TARGETS["plain"]))
    assert [row["kernel"] for row in rows] == ["plain_permuted"]


@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_transposition_alone_is_exact(shape: tuple[int, ...], axes: tuple[int, ...], dtype: str) -> None:
    builder, x = BlockBuilder(), Var("x", TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(_op.permute_dims(x, axes))
        builder.emit_func_output(output)
    mod = builder.get()
    assert [row["kernel"] for row in chosen_kernels(lower(mod, TARGETS["plain"]))] == ["plain_permuted"]
    values = np.random.default_rng(0).integers(-128, 128, shape).astype(dtype)
    moved = compiled(mod, TARGETS["plain"])["main"](tvm.runtime.tensor(values)).numpy()
    assert np.array_equal(moved, values.transpose(axes))
