"""Random graphs: the pipeline keeps every bit, and twins of a graph become the same integers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.graphs import calls_of, names_of
from tests.support.random_graphs import OPERATORS, Program, random_graph
from tests.support.rewrite import assert_same, check_same_numbers, random_inputs
from tvm_qat import pipeline
from tvm_qat.ir import IRModule, op_name, relax, source_of
from tvm_qat.verification.evaluate import evaluate_module

PROGRAMS = st.lists(
    st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(0, 999)), min_size=1, max_size=6
)
SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def _integer_operators(mod: IRModule) -> Counter[str]:
    """Operators that compute with integers; movement, and requantizes that follow it, are free."""
    movement = ("qnn.requantize", "qnn.quantize", "qnn.dequantize", "qnn.concatenate")
    return Counter(name for name in names_of(mod) if name.startswith("qnn.") and name not in movement)


@SETTINGS
@given(PROGRAMS)
def test_every_bit_is_kept(program: Program) -> None:
    mod = random_graph(program)
    for name in pipeline.PASSES:
        after = pipeline.run(mod, until=name)
        relax.analysis.well_formed(after)
    check_same_numbers(mod, after)


@SETTINGS
@given(PROGRAMS)
def test_every_operator_keeps_the_name_of_a_node(program: Program) -> None:
    """And a sum of products that of the convolution or matrix product that it was."""
    mod = random_graph(program)
    linear = {source_of(c) for c in calls_of(mod) if _is_linear(op_name(c))}
    for name in pipeline.PASSES:
        calls = calls_of(pipeline.run(mod, until=name))
        assert None not in {source_of(c) for c in calls}
        assert {source_of(c) for c in calls if _is_linear(op_name(c))} <= linear


def _is_linear(name: str) -> bool:
    return any(part in name for part in ("conv", "matmul", "dense"))


@SETTINGS
@given(PROGRAMS)
def test_the_pipeline_is_a_fixed_point(program: Program) -> None:
    once = pipeline.run(random_graph(program))
    assert_same(pipeline.run(once), once)


@SETTINGS
@given(PROGRAMS)
def test_movements_that_cancel_change_neither_bits_nor_integer_operators(program: Program) -> None:
    plain, twin = (pipeline.run(random_graph(program, detour=detour)) for detour in (False, True))
    inputs = random_inputs(plain)
    for old, new in zip(evaluate_module(plain, inputs), evaluate_module(twin, inputs), strict=True):
        np.testing.assert_array_equal(new, old)
    assert _integer_operators(plain) == _integer_operators(twin)


@SETTINGS
@given(PROGRAMS)
def test_the_order_of_the_nodes_changes_neither_bits_nor_integer_operators(program: Program) -> None:
    plain, twin = (pipeline.run(random_graph(program, backward=backward)) for backward in (False, True))
    inputs = random_inputs(plain)
    for old, new in zip(evaluate_module(plain, inputs), evaluate_module(twin, inputs), strict=True):
        np.testing.assert_array_equal(new, old)
    assert _integer_operators(plain) == _integer_operators(twin)
