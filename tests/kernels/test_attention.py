"""Products of batches read operands that were transposed for them where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, bindings_of, relax, tvm
from tvm_qat.kernels import chosen_kernels, lower
from tvm_qat.passes.fuse import fuse
from tvm_qat.qnn import build as q

# (rows, heads, inner, columns)
SIZES = ((7, 2, 6, 19), (13, 2, 64, 33), (21, 3, 7, 70))
KEYS, VALUES = (0, 2, 3, 1), (0, 2, 1, 3)


def _module(x: Any, y: Any, right: tuple[int, ...], zero: int) -> IRModule:
    left, other = Var("x", TensorType(x.shape, str(x.dtype))), Var("y", TensorType(y.shape, "int8"))
    builder = BlockBuilder()
    with builder.function("main", [left, other]):
        with builder.dataflow():
            moved = (
                builder.emit(relax.op.permute_dims(left, [0, 2, 1, 3])),
                builder.emit(relax.op.permute_dims(other, list(right))),
            )
            output = builder.emit_output(q.batch_matmul(*moved, zero, 0))
        builder.emit_func_output(output)
    return fuse(builder.get())


def _operands(size: tuple[int, ...], right: tuple[int, ...], dtype: str) -> tuple[Any, Any]:
    rows, heads, inner, columns = size
    rng, ends = np.random.default_rng(0), np.iinfo(dtype)
    x = rng.integers(ends.min, ends.max + 1, (2, rows, heads, inner)).astype(dtype)
    shape = (2, columns, heads, inner) if right == KEYS else (2, inner, heads, columns)
    return x, rng.integers(-128, 128, shape).astype(np.int8)


def _run(mod: IRModule, target: str, *inputs: Any) -> Any:
    machine = compiled(mod, TARGETS[target])
    return machine["main"](*[tvm.runtime.tensor(np.ascontiguousarray(array)) for array in inputs]).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("right", [KEYS, VALUES])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", -128), ("uint8", 131)])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_transposed_operands_are_read_exactly(
    target: str, size: tuple[int, ...], right: tuple[int, ...], dtype: str, zero: int
) -> None:
    x, y = _operands(size, right, dtype)
    expected = (x.transpose(0, 2, 1, 3).astype(np.int64) - zero) @ y.transpose(right).astype(np.int64)
    assert np.array_equal(_run(_module(x, y, right, zero), target, x, y), expected)


def test_nothing_is_left_to_transpose() -> None:
    x, y = _operands(SIZES[1], KEYS, "int8")
    lowered = lower(_module(x, y, KEYS, 0), TARGETS["plain"])
    assert len(chosen_kernels(lowered)) == 1 == len([*bindings_of(lowered["main"])])


@pytest.mark.parametrize("right", [(0, 1, 3, 2), (3, 0, 1, 2)])
def test_other_transpositions_are_read_or_made(right: tuple[int, ...]) -> None:
    """The axis of neither sum nor columns may lie last in memory."""
    rng = np.random.default_rng(1)
    x, wanted = rng.integers(-128, 128, (2, 5, 3, 8)).astype(np.int8), (2, 3, 8, 9)
    y = rng.integers(-128, 128, [wanted[right.index(axis)] for axis in range(4)]).astype(np.int8)
    expected = x.transpose(0, 2, 1, 3).astype(np.int64) @ y.transpose(right).astype(np.int64)
    assert np.array_equal(_run(_module(x, y, right, 0), "plain", x, y), expected)
