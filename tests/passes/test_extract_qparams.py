"""Fake quantization becomes quantize and dequantize with the parameters that training learned."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, graph, grid, relax, sources_of
from tests.support.rewrite import check_rewrite, check_same_numbers, check_unchanged
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.ir import Call, Expr, const, dtype_of, make_attrs, tvm
from tvm_qat.passes.extract_qparams import extract_qparams
from tvm_qat.qnn import build as qnn
from tvm_qat.qnn.arithmetic import QUANTIZE_FORMULAS
from tvm_qat.qparams import QParams, nudged_range

SHAPE = (("n", 3, 4), "float32")


@pytest.mark.parametrize("formula", QUANTIZE_FORMULAS)
@pytest.mark.parametrize(
    "params", [grid(0.1, 3), grid([0.1, 0.2, 0.3], axis=1), grid(0.1, 7, "uint8", qmin=0, qmax=15)]
)
def test_scale_and_zero_point_are_taken_with_their_rounding(params: QParams, formula: str) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(qnn.fake_quantize(x, params, formula))

    def expected(b: Graph, x: Expr) -> Expr:
        return b.dequantize(b(qnn.quantize(x, params, formula)), params)

    mod = graph(before, x=SHAPE)
    check_same_numbers(mod, check_rewrite(extract_qparams, mod, graph(expected, x=SHAPE)))


@pytest.mark.parametrize("options", [{}, {"bits": 4}, {"narrow_range": True}, {"signed": True}])
def test_a_range_is_nudged_so_that_zero_lies_on_the_grid(options: dict) -> None:
    params = nudged_range(-1.03, 2.9, **options)

    def before(b: Graph, x: Expr) -> Expr:
        return b(qnn.fake_quantize_range(x, -1.03, 2.9, **options))

    def expected(b: Graph, x: Expr) -> Expr:
        return b.dequantize(b(qnn.quantize(x, params, "nudged_range")), params)

    mod = graph(before, x=SHAPE)
    check_same_numbers(mod, check_rewrite(extract_qparams, mod, graph(expected, x=SHAPE)))


def test_ranges_per_channel_keep_their_axis() -> None:
    low, high = np.float32([-1, -2, -3]), np.float32([1, 3, 2])
    mod = graph(lambda b, x: b(qnn.fake_quantize_range(x, low, high, axis=-2)), x=SHAPE)
    check_same_numbers(mod, extract_qparams(mod))


def test_both_halves_keep_the_source_name_and_the_dtype() -> None:
    mod = graph(lambda b, x: b(qnn.fake_quantize(x, grid(0.1)), "fq"), x=(SHAPE[0], "float16"))
    after = extract_qparams(mod)
    assert sources_of(after) == {"qnn.quantize": "fq", "qnn.dequantize": "fq"}
    assert dtype_of(calls_of(after)[-1]) == "float16"


def test_what_is_extracted_already_is_kept() -> None:
    check_unchanged(extract_qparams, graph(lambda b, x: b.fake(x, grid(0.1)), x=SHAPE))
    check_unchanged(extract_qparams, graph(lambda b, x: b(relax.op.nn.relu(x)), x=SHAPE))


def test_an_empty_range_names_its_node() -> None:
    mod = graph(lambda b, x: b(qnn.fake_quantize_range(x, 1, 1), "fq"), x=SHAPE)
    with pytest.raises(InputError, match=r"node fq.*empty"):
        extract_qparams(mod)


def test_a_scale_computed_at_run_time_is_refused_with_a_remedy() -> None:
    attrs = {"out_dtype": "int8", "qmin": -128, "qmax": 127, "rounding": "half_even"}

    def body(b: Graph, x: Expr) -> Expr:
        scale = b(relax.op.max(x))
        args = [x, scale, const(np.int32(0))]
        return b(Call(tvm.ir.Op.get("qnn.fake_quantize"), args, make_attrs(**attrs)), "fq")

    with pytest.raises(UnsupportedError, match=r"node fq.*run time.*export with fixed scales"):
        extract_qparams(graph(body, x=SHAPE))


def test_fake_quantization_of_what_was_fake_quantized_keeps_its_axis_and_dtype() -> None:
    first, second = grid(0.1), grid([0.1, 0.2, 0.3], axis=1)

    def before(b: Graph, x: Expr) -> Expr:
        return b(qnn.fake_quantize(b(relax.op.nn.relu(b(qnn.fake_quantize(x, first)))), second))

    def expected(b: Graph, x: Expr) -> Expr:
        return b.fake(b(relax.op.nn.relu(b.fake(x, first))), second)

    check_rewrite(extract_qparams, graph(before, x=SHAPE), graph(expected, x=SHAPE))
