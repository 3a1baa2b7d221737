"""Lowering shares equal kernels, keeps names, and refuses with the node's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, Case, case, module_of
from tests.kernels.linear_cases import conv_case, integers
from tests.kernels.pointwise_cases import S8, U8, every
from tvm_qat.errors import UnsupportedError
from tvm_qat.ir import IRModule, bindings_of, const, op_name, source_of
from tvm_qat.kernels import KERNEL, SOURCES, chosen_kernels, lower
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

PLAIN = TARGETS["plain"]


def _kernels(mod: IRModule) -> list[Any]:
    return [func for func in mod.functions.values() if func.attrs is not None and KERNEL in func.attrs]


def test_layers_of_equal_shape_share_one_kernel() -> None:
    rng = np.random.default_rng(0)
    lowered = lower(module_of([conv_case(name, rng) for name in ("first", "second")]), PLAIN)
    (kernel,) = _kernels(lowered)
    assert sorted(map(str, kernel.attrs[SOURCES])) == ["first", "second"]


def test_layers_of_other_scales_share_one_kernel() -> None:
    grids = [QParams(0.1, 3, "uint8"), QParams(0.2, 5, "uint8")]
    cases = [case(str(g.scale), lambda v, g=g: qnn.requantize(v, g, S8), every("uint8")) for g in grids]
    assert len(_kernels(lower(module_of(cases), PLAIN))) == 1


def test_layers_of_other_shape_have_their_own_kernel() -> None:
    rng = np.random.default_rng(0)
    lowered = lower(module_of([conv_case("a", rng), conv_case("b", rng, outer=6)]), PLAIN)
    assert len(_kernels(lowered)) == 2


def test_no_call_of_the_dialect_is_left_and_names_stay() -> None:
    rng = np.random.default_rng(0)
    lowered = lower(module_of([conv_case("conv7", rng)]), PLAIN)
    calls = [binding.value for binding in bindings_of(lowered["case0"])]
    assert [op_name(call) for call in calls if op_name(call)] == ["relax.call_tir"]
    assert source_of(calls[0]) == "conv7"


def test_the_kernel_of_every_node_can_be_told() -> None:
    rng = np.random.default_rng(0)
    cases = [conv_case(name, rng) for name in ("first", "second")]
    chosen = chosen_kernels(lower(module_of(cases), PLAIN))
    assert [entry["node"] for entry in chosen] == ["first", "second"]
    assert {(entry["kernel"], entry["isa"]) for entry in chosen} == {("plain_linear", "generic")}


def test_lowering_is_idempotent() -> None:
    rng = np.random.default_rng(0)
    once = lower(module_of([conv_case("conv7", rng)]), PLAIN)
    assert str(lower(once, PLAIN)) == str(once)


def _refused(one: Case) -> str:
    with pytest.raises(UnsupportedError) as error:
        lower(module_of([one]), PLAIN)
    return str(error.value)


def test_weight_zero_points_per_channel_need_constant_weights() -> None:
    rng = np.random.default_rng(0)
    message = _refused(conv_case("conv7", rng, run_time=True, kernel_zero=None))
    assert message.startswith("node conv7: qnn.conv2d: a weight computed at run time")


def test_a_mean_over_an_unknown_length_is_refused() -> None:
    x = integers(np.random.default_rng(0), "uint8", 2, 3)
    message = _refused(case("mean7", lambda v: qnn.mean(v, U8, U8, [0], False), x, symbolic=((0, 0),)))
    assert message.startswith("node mean7: qnn.mean needs the length")


def test_counting_steps_into_int32_is_refused() -> None:
    x, wide = np.zeros(3, np.float32), QParams(0.1, 0, "int32")
    assert _refused(case("q7", lambda v: qnn.quantize(v, wide, "nudged_range"), x)).startswith(
        "node q7: the formula"
    )


def test_constants_of_the_caller_are_not_changed() -> None:
    weight = integers(np.random.default_rng(0), "uint8", 5, 6)
    before = weight.copy()
    x = integers(np.random.default_rng(1), "uint8", 2, 6)
    lower(module_of([case("dense7", lambda v: qnn.dense(v, const(weight), 3, 128), x)]), PLAIN)
    assert np.array_equal(weight, before)
