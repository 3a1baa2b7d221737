"""Which calls become one kernel, and max_pool2d in a kernel of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tvm_qat.ir import BlockBuilder, Expr, IRModule, TensorType, Tuple, Var, const, relax, tvm
from tvm_qat.kernels import chosen_kernels, lower
from tvm_qat.kernels.float_terms import FLOAT_BINARY, FLOAT_TERMS, FUNCTIONS
from tvm_qat.kernels.islands import gather_islands
from tvm_qat.qnn import build as q
from tvm_qat.qparams import QParams

_op = relax.op
PLAIN = TARGETS["plain"]
UNARY = [name for name in FLOAT_TERMS if name not in FLOAT_BINARY and name != "relax.clip"]


def _module(emit: Any, *types: Any) -> IRModule:
    builder = BlockBuilder()
    params = [Var(f"x{i}", type_) for i, type_ in enumerate(types)]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(emit(builder.emit, *params))
        builder.emit_func_output(result)
    return builder.get()


def _kernels(mod: IRModule) -> list[str]:
    return sorted(row["kernel"] for row in chosen_kernels(lower(mod, PLAIN)))


def _gelu_by_hand(emit: Any, x: Var) -> Expr:
    real = emit(q.dequantize(x, QParams(0.01, 3, "int8")))
    erf = emit(_op.erf(emit(_op.divide(real, const(np.float32(2**0.5))))))
    product = emit(_op.multiply(real, emit(_op.add(erf, const(np.float32(1))))))
    return q.quantize(emit(_op.multiply(product, const(np.float32(0.5)))), QParams(0.02, 0, "int8"))


def test_a_value_used_twice_inside_stays_inside() -> None:
    assert _kernels(_module(_gelu_by_hand, TensorType((4, 33), "int8"))) == ["plain_elementwise"]


def test_a_value_used_outside_is_a_result() -> None:
    def emit(emit: Any, x: Var) -> Expr:
        real = emit(_op.exp(x))
        return Tuple([emit(_op.add(real, real)), emit(_op.permute_dims(real))])

    kernels = _kernels(_module(emit, TensorType((4, 5), "float32")))
    assert sorted(kernels) == ["plain_elementwise", "plain_elementwise", "plain_permuted"]


def test_a_value_of_another_shape_is_a_result() -> None:
    def emit(emit: Any, x: Var, y: Var) -> Expr:
        return _op.add(emit(_op.exp(x)), y)

    types = TensorType((1, 5), "float32"), TensorType((4, 5), "float32")
    assert len(_kernels(_module(emit, *types))) == 2


def test_a_quantized_function_of_another_is_a_kernel_of_its_own() -> None:
    """Written into one formula they multiply: the cell of an LSTM took LLVM longer than minutes."""

    def emit(emit: Any, x: Var) -> Expr:
        grid = QParams(2.0**-12, dtype="int16")
        for _ in range(2):
            x = emit(q.quantize(emit(_op.tanh(emit(q.dequantize(x, grid)))), grid))
        return x

    kernels = _kernels(_module(emit, TensorType((4, 33), "int16")))
    assert kernels == ["plain_elementwise", "plain_elementwise"]


def test_a_function_of_another_is_a_kernel_of_its_own() -> None:
    """Mish: what is not nested stays together."""

    def emit(emit: Any, x: Var) -> Expr:
        softplus = emit(_op.log(emit(_op.add(emit(_op.exp(x)), const(np.float32(1))))))
        return emit(_op.multiply(emit(_op.sigmoid(x)), emit(_op.tanh(softplus))))

    kernels = _kernels(_module(emit, TensorType((4, 33), "float32")))
    assert kernels == ["plain_elementwise"] * 3


def test_two_operators_of_rows_are_two_kernels() -> None:
    def emit(emit: Any, x: Var) -> Expr:
        return _op.nn.softmax(emit(_op.nn.softmax(x, -1)), -1)

    assert _kernels(_module(emit, TensorType((4, 5), "float32"))) == ["plain_rows"] * 2


def test_repeated_use_does_not_grow_without_bound() -> None:
    def emit(emit: Any, x: Var) -> Expr:
        for _ in range(12):
            x = emit(_op.multiply(x, x))
        return _op.add(x, x)

    assert 2 <= len(_kernels(_module(emit, TensorType((4, 5), "float32")))) <= 4


def test_dialect_calls_that_nothing_joins_stay_loose() -> None:
    mod = _module(lambda _emit, x: q.quantize(x, QParams(0.1, 0, "int8")), TensorType((4,), "float32"))
    assert gather_islands(mod) is mod


def test_doubles_are_left_to_tvm() -> None:
    mod = _module(lambda _emit, x: _op.exp(x), TensorType((4,), "float64"))
    assert gather_islands(mod) is mod


@pytest.mark.parametrize("name", UNARY)
def test_float_operators_compute_what_tvm_computes(name: str) -> None:
    call = _op
    for part in name.split(".")[1:]:
        call = getattr(call, part)
    x = np.abs(np.random.default_rng(0).normal(size=(3, 21))).astype(np.float32) + np.float32(0.1)
    if name not in ("relax.log", "relax.sqrt", "relax.rsqrt"):
        x[1:] *= -1
    mod = _module(lambda _emit, v: call(v), TensorType(x.shape, "float32"))
    stock = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    have = compiled(mod, PLAIN)["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_allclose(have, stock, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*UNARY, *FLOAT_BINARY])
def test_functions_are_the_terms_that_call_one(name: str) -> None:
    call = _op
    for part in name.split(".")[1:]:
        call = getattr(call, part)
    types = [TensorType((3, 21), "float32")] * (2 if name in FLOAT_BINARY else 1)
    lowered = lower(_module(lambda _emit, *values: call(*values), *types), PLAIN)
    calls = any("T.qat." in str(func) for func in lowered.functions.values())
    assert calls == (name in FUNCTIONS)


POOLS = (
    ((3, 3), (2, 2), (1, 1, 1, 1)), ((2, 2), (2, 2), (0, 0, 0, 0)), ((3, 2), (1, 3), (2, 0, 1, 1)),
    ((1, 1), (1, 1), (0, 0, 0, 0)), ((5, 5), (3, 2), (2, 2, 2, 2)),
)  # fmt: skip


def _pooled(x: np.ndarray, size: Any, strides: Any, padding: Any) -> np.ndarray:
    top, left, bottom, right = padding
    least = np.iinfo(x.dtype).min if x.dtype.kind != "f" else -np.inf
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=least)
    windows = np.lib.stride_tricks.sliding_window_view(wide, size, (1, 2))
    return windows[:, :: strides[0], :: strides[1]].max((-1, -2))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_max_pool_is_exact_at_borders(dtype: str, target: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (2, 9, 11, 37)).astype(dtype)
    n = tvm.tirx.Var("n", "int64")

    def emit(emit: Any, v: Var) -> Expr:
        return Tuple([emit(_op.nn.max_pool2d(v, *pool, layout="NHWC")) for pool in POOLS])

    mod = _module(emit, TensorType((n, *x.shape[1:]), dtype))
    assert _kernels(mod) == ["plain_max_pool"] * len(POOLS)
    results = compiled(mod, TARGETS[target])["main"](tvm.runtime.tensor(x))
    for have, pool in zip(results, POOLS, strict=True):
        assert np.array_equal(have.numpy(), _pooled(x, *pool))


def test_other_max_pools_are_left_to_tvm() -> None:
    x = TensorType((1, 9, 9, 4), "int8")
    dilated = _module(lambda _e, v: _op.nn.max_pool2d(v, (2, 2), dilation=(2, 2), layout="NHWC"), x)
    channels_first = _module(lambda _e, v: _op.nn.max_pool2d(v, (2, 2)), x)
    assert _kernels(dilated) == _kernels(channels_first) == []
