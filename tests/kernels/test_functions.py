"""Our exponentials and their kin: close to the truth, and the same bits on every target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS
from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.functions import ERROR_ULP, FORMULAS, evaluate
from tvm_qat.kernels.own_functions import OwnFunctions, call, replace_functions
from tvm_qat.kernels.schedule import schedule
from tvm_qat.kernels.strict_float import StrictFloat

Array = np.ndarray[Any, Any]
_tir = tvm.tirx

TRUTH: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf), "pow": np.power, "exp_of_negative": np.exp,
}  # fmt: skip
EDGES = np.array(
    [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e38, -1e38, 2.5,
     2**24 + 1, -(2**24), 88.7, -87.2, -103.9, 5e-324],
    np.float32,
)  # fmt: skip


def _everywhere(seed: int, count: int = 60_000) -> Array:
    """Numbers of every exponent and sign, and as many near one."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(-(2**31), 2**31, count, dtype=np.int64).astype(np.int32).view(np.float32)
    return np.concatenate([wide, rng.uniform(-12, 12, count).astype(np.float32)])


def _inputs(name: str) -> tuple[Array, ...]:
    x = _everywhere(0)
    if name == "pow":
        return np.abs(x), np.clip(_everywhere(1), -30, 30)
    if name == "exp_of_negative":
        return (-np.abs(x),)
    return (x,)


def _errors(name: str, inputs: tuple[Array, ...]) -> Array:
    """In units in the last place, where the result is a normal number."""
    with np.errstate(all="ignore"):
        truth = np.asarray(TRUTH[name](*(x.astype(np.float64) for x in inputs)))
        rounded = truth.astype(np.float32)
        steps = np.spacing(np.abs(rounded)).astype(np.float64)
        error = np.abs(evaluate(FORMULAS[name], *inputs).astype(np.float64) - truth) / steps
    normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(np.float32).tiny)
    return error[normal]


@pytest.mark.parametrize("name", FORMULAS)
def test_errors_stay_within_the_stated_bound(name: str) -> None:
    errors = _errors(name, _inputs(name))
    assert len(errors) > 30_000
    assert errors.max() <= ERROR_ULP[name]


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "pow"])
def test_limits_are_those_of_the_mathematical_function(name: str) -> None:
    x = -np.abs(EDGES) if name == "exp_of_negative" else EDGES
    with np.errstate(all="ignore"):
        want = np.asarray(TRUTH[name](x.astype(np.float64))).astype(np.float32)
    have = evaluate(FORMULAS[name], x)
    assert np.array_equal(np.isnan(have), np.isnan(want))
    special = np.isinf(want) | (want == 0) | (np.abs(want) == 1)
    assert np.array_equal(have[special & ~np.isnan(want)], want[special & ~np.isnan(want)])
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-37)


def test_powers_have_the_limits_of_the_standard() -> None:
    x, y = np.meshgrid(EDGES, EDGES)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    have = evaluate(FORMULAS["pow"], x, y)
    assert np.array_equal(np.isnan(have), np.isnan(want))
    assert np.array_equal(np.signbit(have[~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-44)


def test_small_results_of_exp_are_subnormal_numbers() -> None:
    x = np.linspace(-103.2, -88, 200).astype(np.float32)
    assert np.array_equal(evaluate(FORMULAS["exp"], x) > 0, np.ones(200, bool))


def test_odd_functions_keep_the_sign_of_zero() -> None:
    zeros = np.float32([0.0, -0.0])
    for name in ("tanh", "erf", "log1p"):
        assert np.array_equal(evaluate(FORMULAS[name], zeros).view(np.uint32), zeros.view(np.uint32))


def _compiled(name: str, count: int, target: Any) -> Any:
    te = tvm.te
    places = [te.placeholder((count,), "float32", name=f"x{i}") for i in range(2 if name == "pow" else 1)]
    result = te.compute((count,), lambda i: call(name, *(x[i] for x in places)), name="result")
    func = schedule(te.create_prim_func([*places, result]))
    return tvm.compile(StrictFloat()(IRModule({"main": func.with_attr("global_symbol", "main")})), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMULAS)
def test_compiled_code_has_the_bits_of_the_reference(name: str, target: str) -> None:
    inputs = [np.concatenate([EDGES, x[::31], EDGES[::-1]]) for x in _inputs(name)]
    count = len(inputs[0]) // 16 * 16 + 5
    inputs = [np.resize(x, count) for x in inputs]
    result = tvm.runtime.tensor(np.zeros(count, np.float32))
    _compiled(name, count, TARGETS[target])["main"](*map(tvm.runtime.tensor, inputs), result)
    have, want = result.numpy(), evaluate(FORMULAS[name], *inputs)
    same = (have.view(np.uint32) == want.view(np.uint32)) | (np.isnan(have) & np.isnan(want))
    assert same.all(), (inputs[0][~same][:3], have[~same][:3], want[~same][:3])


def test_half_precision_is_computed_in_single() -> None:
    assert "qat.exp" in str(replace_functions(_tir.exp(_tir.Var("x", "float16"))))


def test_double_precision_keeps_the_c_library() -> None:
    assert "qat" not in str(replace_functions(_tir.exp(_tir.Var("x", "float64"))))


def test_powers_by_two_and_three_are_products() -> None:
    x = _tir.Var("x", "float32")
    for exponent in (2.0, 3.0):
        assert "pow" not in str(replace_functions(_tir.power(x, _tir.const(exponent, "float32"))))
    assert "qat.pow" in str(replace_functions(_tir.power(x, _tir.const(0.5, "float32"))))


def test_every_function_of_a_module_is_replaced() -> None:
    te = tvm.te
    x = te.placeholder((8,), "float32", name="x")
    func = te.create_prim_func([x, te.compute((8,), lambda i: _tir.tanh(_tir.erf(x[i])), name="result")])
    text = str(OwnFunctions()(IRModule({"f": func, "g": func})))
    assert text.count("qat.tanh") == text.count("qat.erf") == 2
