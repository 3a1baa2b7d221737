"""The three FakeQuantWithMinMax operators bit for bit: ties, borders, extremes, odd ranges."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.frameworks.tensorflow_support import evaluated, function, spec, tf
from tvm_qat.errors import InputError

F32 = np.float32
RANGES = [(-1.0, 1.0), (0.0, 6.0), (-0.3, 2.7), (-1e-3, 5e-3), (1.0, 3.0), (-8.0, -2.0), (-1e30, 2e30)]


def values(kind: str, low: float, high: float, bits: int, seed: int) -> np.ndarray:
    """[n], or [n, 2] for two channels, the second with a third of the range."""
    first, second = near_ties(low, high, bits, seed), near_ties(low / 3, high / 3, bits, seed)
    return np.stack([first, second], 1) if kind == "per channel" else first


def near_ties(low: float, high: float, bits: int, seed: int) -> np.ndarray:
    """Floats at and right beside the borders between steps, some beyond the range."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-20, 2**bits + 20, 4000) + rng.choice([0, 0.25, 0.5], 4000)
    start = min(low, 0.0) if low < 0 else 0.0
    x = (start + steps * ((high - low) / (2**bits - 1))).astype(F32)
    beside = [x, np.nextafter(x, F32(np.inf)), np.nextafter(x, F32(-np.inf))]
    return np.concatenate([*beside, F32([0, -0.0, 1e-45, 3e38, -3e38, np.inf, -np.inf])])


def quantized(kind: str, low: float, high: float, bits: int, narrow: bool):
    if kind == "args":
        return lambda x: tf.quantization.fake_quant_with_min_max_args(
            x, float(F32(low)), float(F32(high)), bits, narrow
        )
    if kind == "vars":
        return lambda x: tf.quantization.fake_quant_with_min_max_vars(x, F32(low), F32(high), bits, narrow)
    pair = np.array([low, low / 3], F32), np.array([high, high / 3], F32)
    return lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(x, *pair, bits, narrow)


@pytest.mark.parametrize("kind", ["args", "vars", "per channel"])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", [3, 8, 16])
def test_same_bits_as_tensorflow(kind: str, bits: int, narrow: bool):
    for seed, (low, high) in enumerate(RANGES):
        x = values(kind, low, high, bits, seed)
        body = function(quantized(kind, low, high, bits, narrow), spec(None, *x.shape[1:]))
        (got,) = evaluated(body, {"x": x})
        np.testing.assert_array_equal(got, body(tf.constant(x)), err_msg=f"{low} to {high}")


@pytest.mark.parametrize("kind", ["args", "vars", "per channel"])
def test_constants_are_quantized_alike_around_zero(kind: str):
    """Weights are kept as int8: the grid is moved, not its places."""
    x = values(kind, -0.3, 2.7, 8, 9)
    fake = quantized(kind, -0.3, 2.7, 8, True)
    body = function(lambda y: tf.stop_gradient(fake(tf.constant(x))) * y, spec(1))
    (got,) = evaluated(body, {"x": F32([1])})
    np.testing.assert_array_equal(got, fake(tf.constant(x)))


@pytest.mark.parametrize("kind", ["args", "vars", "per channel"])
def test_compiled_code_has_the_same_bits(kind: str):
    x = values(kind, -0.3, 2.7, 8, 1)
    body = function(quantized(kind, -0.3, 2.7, 8, False), spec(*x.shape))
    got = tq.compile(body, target="native").run({"x": x})
    np.testing.assert_array_equal(next(iter(got.values())), body(tf.constant(x)))


def test_channels_whose_weights_are_all_zero():
    """Their range is [0, 0]: pruned filters, or channels that nothing reads."""
    weight = F32([[0, 0.7], [0, -0.2]])
    low, high = F32([0, -0.7]), F32([0, 0.7])

    def body(x):
        fake = tf.quantization.fake_quant_with_min_max_vars_per_channel(weight, low, high, 8, True)
        return tf.matmul(x, fake)

    concrete = function(body, spec(None, 2))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(F32)
    (got,) = evaluated(concrete, {"x": x})
    np.testing.assert_allclose(got, concrete(tf.constant(x)), rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, 0.0, "never saw data"),
        (1.0, 1.0, "empty or not finite"),
        (2.0, -2.0, "empty or not finite"),
        (np.nan, 1.0, "empty or not finite"),
        (-np.inf, 1.0, "empty or not finite"),
        (-3e38, 3e38, "not finite"),
    ],
)
def test_ranges_that_say_nothing_are_refused(low: float, high: float, message: str):
    body = function(
        lambda x: tf.quantization.fake_quant_with_min_max_vars(x, F32(low), F32(high), name="fq"), spec(3)
    )
    with pytest.raises(InputError, match=rf"node 'fq' \(FakeQuantWithMinMaxVars\).*{message}"):
        tq.import_model(body)


def test_a_range_that_is_computed_is_refused():
    body = function(
        lambda x: tf.quantization.fake_quant_with_min_max_vars(x, tf.reduce_min(x), tf.reduce_max(x)), spec(3)
    )
    with pytest.raises(InputError, match="a range computed at run time"):
        tq.import_model(body)
