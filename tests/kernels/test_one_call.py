"""One function calls all kernels where shapes are known, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import float_module, integer_module
from tvm_qat.compiler import compile
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    IRModule,
    TensorType,
    Var,
    bindings_of,
    const,
    is_const,
    relax,
    tvm,
)
from tvm_qat.kernels import finish, lower, without_schedule
from tvm_qat.kernels.constant_block import BLOCK, is_kernel_call
from tvm_qat.kernels.one_call import RUN

op: Any = relax.op
TARGET = tvm.target.Target("llvm")
TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)

Body = Callable[[BlockBuilder, Var], Expr]


def module(body: Body, shape: tuple[Any, ...] = (3, 4)) -> IRModule:
    """main(x) in float32, whose result is `body`'s."""
    builder = BlockBuilder()
    x = Var("x", TensorType(shape, "float32"))
    with builder.function("main", [x], attrs={"global_symbol": "main"}):
        with builder.dataflow():
            result = builder.emit_output(body(builder, x))
        builder.emit_func_output(result)
    return builder.get()


def lowered(mod: IRModule) -> IRModule:
    return finish(TARGET, one_call=True)(lower(mod, TARGET))


def calls(mod: IRModule) -> list[str]:
    """The kernels that main itself calls."""
    values = [binding.value for binding in bindings_of(mod["main"])]
    return [str(value.op.name_hint) for value in values if is_kernel_call(value)]


def tables(count: int) -> Body:
    def body(builder: BlockBuilder, x: Var) -> Expr:
        for _ in range(count):
            x = builder.emit(op.nn.softmax(builder.emit(op.add(x, const(TABLE)))))
        return x

    return body


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


BODIES: dict[str, tuple[Body, Callable[[np.ndarray], list[np.ndarray]]]] = {
    "kernels in a row": (tables(2), lambda x: [softmax(softmax(x + TABLE) + TABLE)]),
    "a result seen under another shape": (
        lambda b, x: op.reshape(b.emit(op.nn.softmax(x)), (2, 6)),
        lambda x: [softmax(x).reshape(2, 6)],
    ),
    "an input seen under another shape": (
        lambda b, x: op.nn.softmax(b.emit(op.reshape(x, (2, 6)))),
        lambda x: [softmax(x.reshape(2, 6))],
    ),
    "a result that is read again": (
        lambda b, x: relax.Tuple([first := b.emit(op.nn.softmax(x)), b.emit(op.nn.softmax(first))]),
        lambda x: [softmax(x), softmax(softmax(x))],
    ),
    "one result twice": (
        lambda b, x: relax.Tuple([first := b.emit(op.nn.softmax(x)), first]),
        lambda x: [softmax(x), softmax(x)],
    ),
    "an input that is a result": (
        lambda b, x: relax.Tuple([x, b.emit(op.nn.softmax(x))]),
        lambda x: [x, softmax(x)],
    ),
    "a constant that is a result": (
        lambda b, x: relax.Tuple([const(TABLE), b.emit(op.nn.softmax(x))]),
        lambda x: [TABLE, softmax(x)],
    ),
    "no dimensions": (lambda b, x: op.sum(x), lambda x: [x.sum()]),
    "truth values": (lambda b, x: op.greater(x, const(TABLE)), lambda x: [x > TABLE]),
    "several parts": (
        lambda b, x: op.nn.softmax(b.emit(relax.TupleGetItem(b.emit(op.split(x, 2, 1)), 1))),
        lambda x: [softmax(x[:, 2:])],
    ),
    "nothing to do": (lambda b, x: x, lambda x: [x]),
}


@pytest.mark.parametrize("name", BODIES)
def test_results_are_those_of_the_kernels_one_by_one(name: str) -> None:
    body, expected = BODIES[name]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = compile(module(body)).run([x])
    for result, wanted in zip(found.values(), expected(x), strict=True):
        assert result.shape == wanted.shape and result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-5)


def test_main_calls_one_function_where_shapes_are_known() -> None:
    mod, _, schedule = without_schedule(lowered(module(tables(2))))
    assert calls(mod) == [RUN]
    assert schedule is not None and len(schedule["steps"]) == 2
    assert set(schedule["steps"]) <= {gvar.name_hint for gvar in mod.get_global_vars()}


@pytest.mark.parametrize("make", [float_module, integer_module])
def test_symbolic_shapes_leave_the_kernels_to_the_virtual_machine(make: Callable[[], IRModule]) -> None:
    mod, constants, schedule = without_schedule(lowered(make()))
    assert RUN not in calls(mod) and len(calls(mod)) > 1
    assert schedule is None and constants is not None
    found = [binding.value for binding in bindings_of(mod["main"]) if is_kernel_call(binding.value)]
    assert not any(is_const(arg) for call in found for arg in call.args)


def test_calls_of_one_kernel_with_other_constants_keep_their_constants() -> None:
    def body(builder: BlockBuilder, x: Var) -> Expr:
        for factor in (1, 2, 1):
            x = builder.emit(op.nn.softmax(builder.emit(op.add(x, const(factor * TABLE)))))
        return x

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = x
    for factor in (1, 2, 1):
        expected = softmax(expected + factor * TABLE)
    n = tvm.tirx.Var("n", "int64")
    (found,) = compile(module(body, (n, 3, 4))).run([x[None]]).values()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_without_being_asked_main_calls_the_kernels_itself() -> None:
    mod = finish(TARGET)(lower(module(tables(1)), TARGET))
    assert RUN not in calls(mod) and BLOCK not in (mod.attrs or {})


def test_equal_constants_lie_in_one_place() -> None:
    _, once, _ = without_schedule(lowered(module(tables(1))))
    _, often, _ = without_schedule(lowered(module(tables(5))))
    assert once is not None and often is not None
    np.testing.assert_array_equal(once, often)
