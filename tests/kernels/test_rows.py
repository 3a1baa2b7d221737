"""Softmax and normalization over rows: right, in one order on every target, fused with neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tests.support.steps import module_of_steps
from tvm_qat.ir import Expr, IRModule, Var, const, relax, tvm
from tvm_qat.kernels import chosen_kernels, lower
from tvm_qat.kernels.rows import LANES
from tvm_qat.qnn import build as q
from tvm_qat.qnn.arithmetic import quantize
from tvm_qat.qparams import QParams

Array = np.ndarray[Any, Any]
_op = relax.op
OUTPUT = QParams(1 / 200, 3, "uint8")
LENGTHS = (1, 2, 5, 31, 32, 33, 64, 100, 197)


def _run(mod: IRModule, x: Array, target: Any) -> Array:
    return np.asarray(compiled(mod, target)["main"](tvm.runtime.tensor(x)).numpy())


def _data(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) * 3


def _softmax(x: Array) -> Array:
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _layer_norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x.astype(np.float64) - x.astype(np.float64).mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def _norm_of(length: int) -> Callable[[Expr], Expr]:
    gamma, beta = _data(length), _data(length + 1)[1:]
    return lambda x: _op.nn.layer_norm(x, const(gamma), const(beta), axes=[-1], epsilon=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_is_right(length: int) -> None:
    x = _data(3, 7, length)
    have = _run(module_of_steps(lambda v: [_op.nn.softmax(v, -1)], x.shape), x, TARGETS["plain"])
    np.testing.assert_allclose(have, _softmax(x), rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("length", LENGTHS)
def test_layer_norm_is_right(length: int) -> None:
    x = _data(20, length) + 100
    have = _run(module_of_steps(lambda v: [_norm_of(length)(v)], x.shape), x, TARGETS["plain"])
    want = _layer_norm(x, _data(length), _data(length + 1)[1:])
    np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-3)


def test_rms_norm_is_right() -> None:
    x, weight = _data(4, 48), _data(48)
    mod = module_of_steps(lambda v: [_op.nn.rms_norm(v, const(weight), axes=[-1], epsilon=1e-5)], x.shape)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(_run(mod, x, TARGETS["plain"]), want, rtol=2e-6, atol=2e-6)


def _halved(values: list[np.float32]) -> np.float32:
    while len(values) > 1:
        half = len(values) // 2
        values = [x + y for x, y in zip(values[:half], values[half:], strict=True)]
    return values[0]


def test_sums_have_the_stated_order() -> None:
    """rms_norm of ones with epsilon 0 shows the sum of squares in its result."""
    x = _data(1, 77)
    lanes = [np.float32(0)] * LANES
    for i, value in enumerate(x[0]):
        lanes[i % LANES] += value * value
    mean = _halved(lanes) / np.float32(77)
    want = x * (np.float32(1) / np.sqrt(mean + np.float32(0)))
    mod = module_of_steps(
        lambda v: [_op.nn.rms_norm(v, const(np.ones(77, np.float32)), axes=[-1], epsilon=0.0)], x.shape
    )
    assert np.array_equal(_run(mod, x, TARGETS["plain"]), want)


def _attention(x: Var) -> list[Any]:
    return [
        _op.multiply(x, const(np.float32(0.125))),
        lambda v: _op.add(v, const(_data(1, 1, 1, 45))),
        lambda v: _op.nn.softmax(v, -1),
        lambda v: q.quantize(v, OUTPUT),
    ]


def _feed_forward(x: Var) -> list[Any]:
    source = QParams(np.linspace(0.01, 0.02, 45), 0, "int32", 3)
    return [
        q.dequantize(x, source),
        lambda v: _op.nn.gelu(v),
        _norm_of(45),
        lambda v: q.quantize(v, OUTPUT),
    ]


@pytest.fixture(scope="module")
def plain() -> dict[str, Array]:
    return {name: _run(mod, x, TARGETS["plain"]) for name, (mod, x) in _fused().items()}


def _fused() -> dict[str, tuple[IRModule, Array]]:
    whole = np.random.default_rng(0).integers(-300, 300, (2, 3, 19, 45)).astype(np.int32)
    n = tvm.tirx.Var("n", "int64")
    return {
        "attention": (module_of_steps(_attention, (n, 3, 19, 45)), _data(2, 3, 19, 45)),
        "feed_forward": (module_of_steps(_feed_forward, whole.shape, "int32"), whole),
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["attention", "feed_forward"])
def test_fused_rows_have_the_same_bits_on_every_target(
    name: str, target: str, plain: dict[str, Array]
) -> None:
    mod, x = _fused()[name]
    assert np.array_equal(_run(mod, x, TARGETS[target]), plain[name])


@pytest.mark.parametrize("name", ["attention", "feed_forward"])
def test_rows_and_their_neighbours_are_one_kernel(name: str) -> None:
    mod, _ = _fused()[name]
    assert [row["kernel"] for row in chosen_kernels(lower(mod, TARGETS["plain"]))] == ["plain_rows"]


def test_fused_attention_equals_its_steps(plain: dict[str, Array]) -> None:
    x = _data(2, 3, 19, 45)
    scores = x * np.float32(0.125) + _data(1, 1, 1, 45)
    alone = _run(module_of_steps(lambda v: [_op.nn.softmax(v, -1)], x.shape), scores, TARGETS["plain"])
    assert np.array_equal(plain["attention"], quantize(alone, OUTPUT))


def test_masked_places_of_a_softmax_are_zero() -> None:
    x = _data(2, 40)
    x[:, ::3] = -np.inf
    have = _run(module_of_steps(lambda v: [_op.nn.softmax(v, -1)], x.shape), x, TARGETS["plain"])
    assert not have[:, ::3].any()
    np.testing.assert_allclose(have.sum(-1), 1, rtol=1e-6)


def test_rows_that_hold_nan_are_nan() -> None:
    x = _data(2, 40)
    x[0, 7] = np.nan
    have = _run(module_of_steps(lambda v: [_op.nn.softmax(v, -1)], x.shape), x, TARGETS["plain"])
    assert np.isnan(have[0]).all()
    assert not np.isnan(have[1]).any()


def test_softmax_over_another_axis_is_left_to_tvm() -> None:
    mod = module_of_steps(lambda v: [_op.nn.softmax(v, 1)], (2, 5, 6))
    assert chosen_kernels(lower(mod, TARGETS["plain"])) == []
    x = _data(2, 5, 6)
    want = np.moveaxis(_softmax(np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_allclose(_run(mod, x, TARGETS["plain"]), want, rtol=2e-6)
