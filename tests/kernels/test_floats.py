"""Float islands: the same bits on every target, whatever LLVM could contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Tuple, Var, const, relax, tvm
from tvm_qat.kernels.schedule import schedule
from tvm_qat.kernels.strict_float import StrictFloat, fence_products

_op = relax.op


def _island() -> IRModule:
    """Everything that multiplies and adds: convolution, matmul, normalization, gelu, softmax."""
    rng = np.random.default_rng(0)
    ones, builder = const(np.ones(16, np.float32)), BlockBuilder()
    weight, dense = rng.normal(size=(16, 8, 3, 3)), rng.normal(size=(16 * 100, 10))
    x = Var("x", TensorType((tvm.tirx.Var("n", "int64"), 8, 10, 10), "float32"))
    q = Var("q", TensorType((2, 7, 9, 9), "int8"))
    with builder.function("main", [x, q]):
        with builder.dataflow():
            conv = builder.emit(_op.nn.conv2d(x, const(weight, "float32"), padding=1))
            scaled = _op.multiply(conv, const(rng.normal(size=(1, 16, 1, 1)), "float32"))
            added = builder.emit(_op.add(scaled, const(rng.normal(size=(1, 16, 1, 1)), "float32")))
            last = builder.emit(_op.nn.softmax(_op.permute_dims(added, [0, 2, 3, 1])))
            norm = builder.emit(_op.nn.gelu(_op.nn.layer_norm(last, ones, ones, [-1])))
            rows = _op.reshape(norm, (x.ty.shape.values[0], 1600))
            product = builder.emit(_op.matmul(rows, const(dense, "float32")))
            pooled = builder.emit(_op.nn.max_pool2d(q, pool_size=(3, 3), strides=(2, 2), padding=(1, 1)))
            result = builder.emit_output(Tuple([added, norm, product, _op.mean(norm, [1, 2]), pooled]))
        builder.emit_func_output(result)
    return builder.get()


def _run(machine: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    x, q = rng.normal(size=(2, 8, 10, 10)).astype(np.float32), rng.integers(-128, 128, (2, 7, 9, 9))
    inputs = [tvm.runtime.tensor(x), tvm.runtime.tensor(q.astype(np.int8))]
    return [np.asarray(result.numpy()) for result in machine["main"](*inputs)]


@pytest.fixture(scope="module")
def plain() -> list[np.ndarray]:
    """A target that has no fused multiply-add."""
    return _run(compiled(_island(), TARGETS["plain"]))


def test_float_islands_compute_what_tvm_computes(plain: list[np.ndarray]) -> None:
    stock = _run(relax.VirtualMachine(tvm.compile(_island(), "llvm"), tvm.cpu()))
    for have, want in zip(plain, stock, strict=True):
        np.testing.assert_allclose(have, want, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_float_islands_have_the_same_bits_on_every_target(target: str, plain: list[np.ndarray]) -> None:
    for have, want in zip(_run(compiled(_island(), TARGETS[target])), plain, strict=True):
        assert np.array_equal(have.view(np.uint8), want.view(np.uint8))


def _multiply_add(dtype: str) -> Any:
    te = tvm.te
    x, y, z = (te.placeholder((64,), dtype, name=name) for name in "xyz")
    result = te.compute((64,), lambda i: x[i] * y[i] + z[i], name="result")
    return te.create_prim_func([x, y, z, result])


def test_float_products_are_fenced() -> None:
    assert "llvm.arithmetic.fence" in str(fence_products(_multiply_add("float32").body))


def test_integer_products_are_kept() -> None:
    body = _multiply_add("int32").body
    assert "fence" not in str(fence_products(body))


def test_every_function_of_a_module_is_fenced() -> None:
    mod = StrictFloat()(tvm.IRModule({name: _multiply_add("float64") for name in ("f", "g")}))
    assert str(mod).count("llvm.arithmetic.fence") == 2


def test_the_innermost_loop_is_vectorized() -> None:
    assert "T.vectorized" in str(schedule(_multiply_add("float32")))


def test_a_scheduled_function_is_kept() -> None:
    once = schedule(_multiply_add("float32"))
    assert "tirx.is_scheduled" in once.attrs


def test_functions_without_schedulable_blocks_keep_their_loops() -> None:
    """A sort is a call of the runtime, a cumulative sum is one nest that no block describes."""
    builder, x = BlockBuilder(), Var("x", TensorType((3, 40), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            sums = builder.emit(_op.cumsum(x, 1))
            result = builder.emit_output(Tuple([_op.sort(sums), sums]))
        builder.emit_func_output(result)
    data = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    machine = compiled(builder.get(), TARGETS["plain"])
    in_order, sums = machine["main"](tvm.runtime.tensor(data))
    assert np.array_equal(sums.numpy(), np.cumsum(data, 1, dtype=np.float32))
    assert np.array_equal(in_order.numpy(), np.sort(sums.numpy(), 1))


def test_small_functions_stay_on_one_thread_and_large_ones_do_not() -> None:
    assert "T.parallel" not in str(schedule(_multiply_add("float32")))
    te = tvm.te
    x = te.placeholder((512, 512), "float32", name="x")
    large = te.create_prim_func([x, te.compute((512, 512), lambda i, j: x[i, j] + x[j, i], name="result")])
    assert "T.parallel" in str(schedule(large))
