"""Sorting on a GPU: equal values as they stood, which is the order of the CPU, and NaN last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled
from tests.support.cuda import Emulated, needs_compiler
from tests.support.steps import module_of_steps
from tvm_qat.ir import Var, relax, tvm

pytestmark = needs_compiler

Build = Callable[[Var], Any]


def _order(x: Any, axis: int = -1, descending: bool = True) -> Any:
    return np.argsort((-1 if descending else 1) * x.astype(np.int64), axis, kind="stable")


def _sorted(x: Any, axis: int, descending: bool) -> Any:
    return np.take_along_axis(x, _order(x, axis, descending), axis)


FORMS: dict[str, tuple[Build, Callable[[Any], list[Any]]]] = {
    "topk": (
        lambda x: relax.op.topk(x, k=3),
        lambda x: [_sorted(x, -1, True)[:, :3], _order(x)[:, :3].astype("int32")],
    ),
    "topk_of_all_least_first": (
        lambda x: relax.op.topk(x, k=-1, axis=0, ret_type="values", largest=False),
        lambda x: [_sorted(x, 0, False)],
    ),
    "topk_indices": (
        lambda x: relax.op.topk(x, k=1, axis=1, ret_type="indices", dtype="int64"),
        lambda x: [_order(x)[:, :1]],
    ),
    "argsort": (
        lambda x: relax.op.argsort(x, descending=True),
        lambda x: [_order(x).astype("int32")],
    ),
    "sort": (lambda x: relax.op.sort(x, axis=0), lambda x: [_sorted(x, 0, False)]),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_equal_values_keep_their_order(name: str, dtype: str, tmp_path: Path) -> None:
    x = np.random.default_rng(len(name)).integers(-5, 5, (6, 41)).astype(dtype)
    build, wanted = FORMS[name]
    have = Emulated(module_of_steps(lambda data: [build(data)], x.shape, dtype), tmp_path).run([x])
    for one, other in zip(have, wanted(x), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("k", [1, 5, 41])
def test_topk_is_that_of_the_cpu(k: int, tmp_path: Path) -> None:
    x = np.random.default_rng(k).integers(-5, 5, (6, 41)).astype(np.float32)
    mod = module_of_steps(lambda data: [relax.op.topk(data, k=k)], x.shape)
    wanted = [part.numpy() for part in compiled(mod, TARGETS["plain"])["main"](tvm.runtime.tensor(x))]
    for one, other in zip(Emulated(mod, tmp_path).run([x]), wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_every_element_has_a_place_whatever_it_is(tmp_path: Path) -> None:
    x = np.array([[np.nan, 1, -np.inf, np.nan, np.inf, -0.0, 0.0, 1]], np.float32)
    (order,) = Emulated(module_of_steps(lambda data: [FORMS["argsort"][0](data)], x.shape), tmp_path).run([x])
    np.testing.assert_array_equal(order, [[4, 1, 7, 5, 6, 2, 0, 3]])
