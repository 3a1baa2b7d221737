"""Every spelling of fake quantization becomes the dialect's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, graph, grid, names_of, relax
from tests.support.rewrite import check_rewrite, check_same_numbers, check_unchanged
from tvm_qat.ir import Expr, attrs_of, const, dtype_of
from tvm_qat.passes.canonicalize_fake_quant import canonicalize_fake_quant
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

SHAPE = (("n", 3, 4), "float32")


def f32(value: Any) -> Expr:
    return const(np.asarray(value, np.float32))


# ---------------------------------------------------------------- TVM's own operators


def test_tvms_quantize_and_dequantize_become_the_dialects() -> None:
    params = grid([0.5, 0.25, 1], [1, -2, 3], axis=1)

    def before(b: Graph, x: Expr) -> Expr:
        scale, zero = f32(params.scale), const(params.zero_point.astype(np.int8))
        q = b(relax.op.quantize(x, scale, zero, axis=1, out_dtype="int8"))
        return b(relax.op.dequantize(q, scale, zero, axis=1))

    mod = graph(before, x=SHAPE)
    after = check_rewrite(canonicalize_fake_quant, mod, graph(lambda b, x: b.fake(x, params), x=SHAPE))
    check_same_numbers(mod, after)


def test_a_negative_axis_is_counted_from_the_end() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.quantize(x, f32([0.5, 1, 2, 4]), const(np.zeros(4, np.int8)), axis=-1))

    after = canonicalize_fake_quant(graph(before, x=SHAPE))
    assert attrs_of(calls_of(after)[0])["output_axis"] == 2


def test_zero_points_that_are_all_zero_stay_constants() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.quantize(x, f32([0.5, 1, 2]), const(np.zeros(3, np.int8)), axis=1))

    (call,) = calls_of(canonicalize_fake_quant(graph(before, x=SHAPE)))
    assert names_of(canonicalize_fake_quant(graph(before, x=SHAPE))) == ["qnn.quantize"]
    assert dtype_of(call.args[2]) == "int32"


def test_a_scale_computed_at_run_time_is_kept() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        scale = b(relax.op.max(x))
        return b(relax.op.quantize(x, scale, const(np.int8(0)), axis=0))

    check_unchanged(canonicalize_fake_quant, graph(body, x=SHAPE))


# ---------------------------------------------------------------- chains that trainers write out


def _chain(
    b: Graph, x: Expr, scale: Any = 0.125, zero: float = 0.0, low: float = -8, high: float = 7, *,
    reciprocal: bool = False, floor: bool = False, clip_first: bool = False, minmax: bool = False,
    zero_inside: bool = True,
) -> Expr:  # fmt: skip
    """round(x / scale) + zero, clipped, minus zero, times scale; in the variants that occur."""
    scale = np.asarray(scale, np.float32)
    value = b(relax.op.multiply(x, f32(1 / scale)) if reciprocal else relax.op.divide(x, f32(scale)))
    add = zero and zero_inside
    if clip_first:
        value = b(relax.op.clip(value, low, high))
    value = relax.op.floor(b(relax.op.add(value, f32(0.5)))) if floor else relax.op.round(value)
    value = b(value)
    value = b(relax.op.add(value, f32(zero))) if add else value
    if minmax:
        value = b(relax.op.minimum(b(relax.op.maximum(value, f32(low))), f32(high)))
    elif not clip_first:
        value = b(relax.op.clip(value, low, high))
    value = b(relax.op.subtract(value, f32(zero))) if add else value
    return b(relax.op.multiply(value, f32(scale)))


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "8 bits": {"low": -128, "high": 127},
    "unsigned": {"low": 0, "high": 255, "zero": 128},
    "odd zero point": {"low": 0, "high": 15, "zero": 3},
    "reciprocal": {"reciprocal": True},
    "floor of x plus a half": {"floor": True},
    "clip before rounding": {"clip_first": True},
    "clip before rounding and zero point": {"clip_first": True, "low": -3, "high": 12, "zero": 3},
    "maximum and minimum": {"minmax": True},
    "per channel": {"scale": np.array([0.125, 0.5, 1]).reshape(3, 1)},
    "16 bits": {"low": -32768, "high": 32767, "scale": 2**-12},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_written_out_chain_is_recognized_and_keeps_its_numbers(name: str) -> None:
    mod = graph(lambda b, x: _chain(b, x, **VARIANTS[name]), x=SHAPE)
    after = canonicalize_fake_quant(mod)
    assert names_of(after) == ["qnn.fake_quantize"]
    ties = (np.arange(-480, 480) / 32).astype(np.float32).reshape(80, 3, 4)
    check_same_numbers(mod, after, [ties])


def _rounded_by(rounding: Callable[[Expr], Expr], **options: Any) -> Callable[[Graph, Expr], Expr]:
    def body(b: Graph, x: Expr) -> Expr:
        reciprocal = options.get("reciprocal", False)
        value = b(relax.op.multiply(x, f32(8)) if reciprocal else relax.op.divide(x, f32(0.125)))
        return b(relax.op.multiply(b(relax.op.clip(b(rounding(value)), -8, 7)), f32(0.125)))

    return body


def _zero_point_inside(b: Graph, x: Expr) -> Expr:
    """Ties to even are ties to odd of the value itself."""
    q = b(relax.op.round(b(relax.op.add(b(relax.op.divide(x, f32(0.125))), f32(3)))))
    q = b(relax.op.subtract(b(relax.op.clip(q, 0, 15)), f32(3)))
    return b(relax.op.multiply(q, f32(0.125)))


def _negated_zero_point(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.round(b(relax.op.subtract(b(relax.op.divide(x, f32(0.125))), f32(-3)))))
    q = b(relax.op.add(b(relax.op.clip(q, 0, 15)), f32(-3)))
    return b(relax.op.multiply(q, f32(0.125)))


def _through_integers(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.astype(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), "int32"))
    q = b(relax.op.astype(b(relax.op.clip(q, -8, 7)), "float32"))
    return b(relax.op.multiply(q, f32(0.125)))


def _through_bytes(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), -128, 127))
    q = b(relax.op.astype(b(relax.op.astype(q, "int8")), "float32"))
    return b(relax.op.multiply(q, f32(0.125)))


def _cut_by_a_cast(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.astype(b(relax.op.divide(x, f32(0.125))), "int32"))
    q = b(relax.op.clip(b(relax.op.astype(q, "float32")), -8, 7))
    return b(relax.op.multiply(q, f32(0.125)))


def _clipped_as_it_came(b: Graph, x: Expr) -> Expr:
    """PACT: the range is a clip of the input."""
    q = b(relax.op.round(b(relax.op.divide(b(relax.op.clip(x, 0, 1.875)), f32(0.125)))))
    return b(relax.op.multiply(q, f32(0.125)))


def _shapes_that_mean_the_same(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(x, f32([0.125]))))), -8, 7))
    return b(relax.op.multiply(q, f32(0.125)))


SPELLINGS: dict[str, Callable[[Graph, Expr], Expr]] = {
    "floor": _rounded_by(relax.op.floor),
    "ceil": _rounded_by(relax.op.ceil),
    "trunc": _rounded_by(relax.op.trunc),
    "floor of a product": _rounded_by(relax.op.floor, reciprocal=True),
    "an odd zero point inside the rounding": _zero_point_inside,
    "a negated zero point": _negated_zero_point,
    "through int32": _through_integers,
    "through int8": _through_bytes,
    "cut by a cast": _cut_by_a_cast,
    "clipped as it came": _clipped_as_it_came,
    "a scale of shape [1] and one of shape []": _shapes_that_mean_the_same,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings_are_recognized_and_keep_their_numbers(name: str) -> None:
    mod = graph(SPELLINGS[name], x=SHAPE)
    after = canonicalize_fake_quant(mod)
    assert names_of(after)[-1] == "qnn.fake_quantize" and len(names_of(after)) <= 2
    ties = (np.arange(-480, 480) / 32).astype(np.float32).reshape(80, 3, 4)
    check_same_numbers(mod, after, [ties])


def test_a_constant_may_be_written_as_a_chain_too() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.add(x, _chain(b, f32(np.linspace(-2, 2, 12).reshape(3, 4)), reciprocal=True)))

    mod = graph(before, x=SHAPE)
    after = canonicalize_fake_quant(mod)
    assert "qnn.fake_quantize" in names_of(after)
    check_same_numbers(mod, after)


def test_a_clip_of_integers_joins_the_quantize_before_it() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.clip(b(qnn.quantize(x, grid(0.5))), -8, 7))

    def expected(b: Graph, x: Expr) -> Expr:
        return b(qnn.quantize(x, grid(0.5, qmin=-8, qmax=7)))

    mod = graph(before, x=SHAPE)
    after = check_rewrite(canonicalize_fake_quant, mod, graph(expected, x=SHAPE))
    check_same_numbers(mod, after)


@pytest.mark.parametrize("name", ["plain", "odd zero point", "maximum and minimum"])
def test_constants_may_stand_on_either_side(name: str) -> None:
    """Importers write x * s and s * x, max(x, low) and max(low, x) alike."""
    options = VARIANTS[name] | {"low": -8.0, "high": 7.0, "zero": 0.0}
    scale = f32(0.125)

    def before(b: Graph, x: Expr) -> Expr:
        q = b(relax.op.round(b(relax.op.divide(x, scale))))
        q = b(relax.op.minimum(f32(options["high"]), b(relax.op.maximum(f32(options["low"]), q))))
        return b(relax.op.multiply(scale, q))

    assert names_of(canonicalize_fake_quant(graph(before, x=SHAPE))) == ["qnn.fake_quantize"]


def test_the_chain_becomes_the_operator_with_its_range() -> None:
    mod = graph(lambda b, x: _chain(b, x, zero=3.0, low=0, high=15), x=SHAPE)
    params = QParams(np.float32(0.125), np.array(3), "int8", None, 0, 15)
    expected = graph(lambda b, x: b(qnn.fake_quantize(x, params)), x=SHAPE)
    check_rewrite(canonicalize_fake_quant, mod, expected)


def _other_scale(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), -8, 7))
    return b(relax.op.multiply(q, f32(0.25)))


def _no_rounding(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.clip(b(relax.op.divide(x, f32(0.125))), -8, 7))
    return b(relax.op.multiply(q, f32(0.125)))


def _no_bounds(b: Graph, x: Expr) -> Expr:
    return b(relax.op.multiply(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), f32(0.125)))


def _scale_over_x(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(f32(0.125), x)))), -8, 7))
    return b(relax.op.multiply(q, f32(0.125)))


def _zero_point_never_leaves(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.add(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), f32(3)))
    return b(relax.op.multiply(b(relax.op.clip(q, -8, 7)), f32(0.125)))


def _rounded_twice(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.round(b(relax.op.round(b(relax.op.divide(x, f32(0.125)))))))
    return b(relax.op.multiply(b(relax.op.clip(q, -8, 7)), f32(0.125)))


def _negative_scale(b: Graph, x: Expr) -> Expr:
    return b(relax.op.multiply(_chain(b, x), f32(-1)))


def _rounded_around_a_zero_point_by_a_reciprocal(b: Graph, x: Expr) -> Expr:
    """No formula of ours multiplies by a reciprocal and rounds up a sum with the zero point."""
    q = b(relax.op.ceil(b(relax.op.add(b(relax.op.multiply(x, f32(8))), f32(3)))))
    q = b(relax.op.subtract(b(relax.op.clip(q, 0, 15)), f32(3)))
    return b(relax.op.multiply(q, f32(0.125)))


def _wrapped_before_it_is_clipped(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.astype(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), "int8"))
    q = b(relax.op.clip(b(relax.op.astype(q, "float32")), -8, 7))
    return b(relax.op.multiply(q, f32(0.125)))


def _clipped_off_the_grid(b: Graph, x: Expr) -> Expr:
    q = b(relax.op.round(b(relax.op.divide(b(relax.op.clip(x, -1.03, 0.875)), f32(0.125)))))
    return b(relax.op.multiply(q, f32(0.125)))


NO_CHAINS: dict[str, Callable[[Graph, Expr], Expr]] = {
    "another scale at the end": _other_scale,
    "no rounding": _no_rounding,
    "no bounds": _no_bounds,
    "scale over x": _scale_over_x,
    "a zero point that never leaves": _zero_point_never_leaves,
    "rounded twice": _rounded_twice,
    "rounded up around a zero point, by a reciprocal": _rounded_around_a_zero_point_by_a_reciprocal,
    "wrapped before it is clipped": _wrapped_before_it_is_clipped,
    "clipped off the grid": _clipped_off_the_grid,
    "bounds that are no whole numbers": lambda b, x: _chain(b, x, low=-7.5, high=7.5),
    "more than 16 bits": lambda b, x: _chain(b, x, low=-70000, high=70000),
    "bounds that leave out the zero point": lambda b, x: _chain(b, x, low=1, high=15),
    "a scale per element": lambda b, x: _chain(b, x, scale=np.full((3, 4), 0.125)),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_arithmetic_that_is_no_fake_quantization_is_kept(name: str) -> None:
    check_unchanged(canonicalize_fake_quant, graph(NO_CHAINS[name], x=SHAPE))


def test_a_chain_inside_other_arithmetic_is_recognized() -> None:
    after = canonicalize_fake_quant(graph(_negative_scale, x=SHAPE))
    assert names_of(after) == ["qnn.fake_quantize", "multiply"]


def test_a_chain_whose_middle_is_read_elsewhere_is_recognized() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        q = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(x, f32(0.125))))), -8, 7))
        return b(relax.op.multiply(q, f32(0.125))), q

    mod = graph(before, x=SHAPE)
    after = canonicalize_fake_quant(mod)
    assert "qnn.fake_quantize" in names_of(after)
    check_same_numbers(mod, after)
