from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_qat.errors import InputError
from tvm_qat.ir import tvm
from tvm_qat.qparams import STORAGE_RANGE, QParams, nudged_range

F32 = np.float32


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"scale": 0.0}, "scale 0 is not positive"),
        ({"scale": -0.5}, "scale -0.5 is not positive"),
        ({"scale": [0.1, -0.2], "axis": 0}, "scale -0.2 is not positive"),
        ({"scale": math.nan}, "scale nan is not finite"),
        ({"scale": math.inf}, "scale inf is not finite"),
        ({"scale": [0.1, 1e39], "axis": 0}, "scale 1e\\+39 is beyond float32"),
        ({"scale": [0.1, -math.inf], "axis": 0}, "scale -inf is not finite"),
        ({"scale": []}, "scale is empty"),
        ({"scale": [[0.1, 0.2]], "axis": 0}, r"not of shape \(1, 2\)"),
        ({"zero_point": 128}, r"zero point 128 is outside \[-128, 127\]"),
        ({"zero_point": -1, "dtype": "uint8"}, r"zero point -1 is outside \[0, 255\]"),
        ({"zero_point": np.uint64(2**64 - 1)}, "zero point 18446744073709551615 is outside"),
        ({"zero_point": [0, 300], "axis": 0}, "zero point 300 is outside"),
        ({"zero_point": 0.0}, "zero point has dtype float64, not an integer"),
        ({"zero_point": True}, "zero point has dtype bool, not an integer"),
        ({"zero_point": np.zeros(0, int), "axis": 0}, "zero point is empty"),
        ({"scale": [0.1, 0.2]}, "per-channel parameters need an axis"),
        ({"zero_point": [0, 1]}, "per-channel parameters need an axis"),
        ({"scale": [0.1, 0.2], "axis": 1.5}, "axis 1.5 is not an integer"),
        ({"scale": [0.1, 0.2], "zero_point": [1, 2, 3], "axis": 0}, "2 scales but 3 zero points"),
        ({"dtype": "float32"}, "dtype float32 cannot store quantized values"),
        ({"dtype": "uint32"}, "dtype uint32 cannot store quantized values"),
        ({"qmin": -129}, r"range \[-129, 127\] does not fit int8"),
        ({"qmax": 128}, r"range \[-128, 128\] does not fit int8"),
        ({"qmin": 5, "qmax": 5}, r"range \[5, 5\] does not fit int8"),
        ({"qmin": 7, "qmax": -7}, r"range \[7, -7\] does not fit int8"),
        ({"qmin": 0.5}, "qmin 0.5 is not an integer"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict, reason: str):
    with pytest.raises(InputError, match=reason):
        QParams(**{"scale": 0.1, **arguments})


@pytest.mark.parametrize("dtype", STORAGE_RANGE)
def test_the_range_defaults_to_that_of_the_dtype(dtype: str):
    info = np.iinfo(dtype)
    assert QParams(0.1, dtype=dtype).range == (info.min, info.max)
    for zero_point in (info.min, info.max):
        assert QParams(0.1, zero_point, dtype).zero_point == zero_point


def test_parameters_of_shape_one_are_per_tensor():
    params = QParams(np.array([0.5], np.float32), np.array([3]), axis=1)
    assert params.scale.shape == params.zero_point.shape == ()
    assert params.axis is None and not params.per_channel and params.channels is None
    assert params == QParams(0.5, 3)


def test_one_of_scale_and_zero_point_may_be_per_channel():
    assert QParams([0.1, 0.2, 0.3], 4, axis=1).channels == 3
    assert QParams(0.1, [1, 2, 3], axis=-1).channels == 3


def test_parameters_do_not_change_with_the_arrays_they_were_made_of():
    scale, zero_point = np.array([0.1, 0.2]), np.array([1, 2], np.int32)
    params = QParams(scale, zero_point, axis=0)
    scale[0], zero_point[0] = 9, 9
    assert params.scale[0] == 0.1 and params.zero_point[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        params.scale[0] = 1.0


def test_the_product_of_two_float32_scales_is_kept_exactly():
    product = np.float64(F32(0.1)) * np.float64(F32(0.3))
    assert QParams(product).scale == product != np.float64(F32(product))


def test_equality_and_hash_follow_the_values():
    params = QParams([0.1, 0.2], [1, 2], "int8", 0, -7, 7)
    assert params == params.with_() and hash(params) == hash(params.with_())
    for other in (
        params.with_(scale=[0.1, 0.25]), params.with_(zero_point=[1, 3]), params.with_(axis=1),
        params.with_(qmin=-8), params.with_(dtype="int16"), params.with_(scale=[0.1] * 2),
    ):  # fmt: skip
        assert params != other
    assert params != "something else"
    assert params.same_grid(params.with_(qmin=-8))
    assert not params.same_grid(params.with_(dtype="int16"))


def test_repeating_a_value_per_channel_makes_no_difference():
    short, long = QParams(0.1, [1, 2], axis=0), QParams([0.1, 0.1], [1, 2], axis=0)
    assert short == long and hash(short) == hash(long)


def test_parameters_of_different_lengths_differ():
    assert QParams([0.1] * 2, axis=0) != QParams([0.1] * 3, axis=0)
    assert QParams([0.1] * 2, axis=0) != QParams(0.1)


def test_with_checks_again():
    with pytest.raises(InputError, match="outside"):
        QParams(0.1, -5).with_(dtype="uint8")


def test_check_axis_makes_it_non_negative():
    params = QParams([0.1, 0.2, 0.3], axis=-2)
    assert params.check_axis((2, 3, 4)).axis == 1
    assert params.check_axis((2, 3, 4)) != params
    assert QParams(0.1).check_axis(()) == QParams(0.1)


def test_check_axis_compares_known_sizes_only():
    params, n = QParams([0.1, 0.2, 0.3], axis=1), tvm.tirx.Var("n", "int64")
    assert params.check_axis((n, 3)) == params.check_axis((4, n)) == params
    with pytest.raises(InputError, match="3 channel parameters for 4 channels on axis 1"):
        params.check_axis((n, 4))


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_beyond_the_rank_is_refused(axis: int):
    with pytest.raises(InputError, match=f"axis {axis} is out of range for rank 2"):
        QParams([0.1, 0.2], axis=axis).check_axis((2, 2))


def test_to_json_holds_plain_numbers():
    text = json.dumps(QParams(np.float32([0.5, 2]), np.array([0, 1]), "uint8", np.int64(1)).to_json())
    assert json.loads(text) == {
        "scale": [0.5, 2.0], "zero_point": [0, 1], "dtype": "uint8", "axis": 1, "qmin": 0, "qmax": 255,
    }  # fmt: skip
    assert QParams(0.5).to_json()["zero_point"] == 0


scales = st.floats(2.0**-100, 2.0**100, allow_nan=False)


@given(scales, st.sampled_from(sorted(STORAGE_RANGE)), st.data())
def test_any_valid_parameters_survive_json(scale: float, dtype: str, data: st.DataObject):
    low, high = STORAGE_RANGE[dtype]
    qmin = data.draw(st.integers(low, high - 1))
    qmax = data.draw(st.integers(qmin + 1, high))
    params = QParams(scale, data.draw(st.integers(low, high)), dtype, None, qmin, qmax)
    again = QParams(**json.loads(json.dumps(params.to_json())))
    assert again == params and hash(again) == hash(params)


def tensorflow_nudge(low: float, high: float, qmin: int, qmax: int) -> tuple[np.float32, int]:
    """`Nudge` of TensorFlow's fake_quant_ops_functor.h, one float32 operation a line."""
    low, high = F32(low), F32(high)
    difference = F32(high - low)
    scale = F32(difference / F32(F32(qmax) - F32(qmin)))
    quotient = F32(low / scale)
    from_min = F32(F32(qmin) - quotient)
    if from_min < qmin:
        return scale, qmin
    if from_min > qmax:
        return scale, qmax
    exact = float(from_min)  # std::round in float64 is exact here
    return scale, int(math.copysign(math.floor(abs(exact) + 0.5), exact))


def check_nudged(low: float, high: float, bits: int, signed: bool, narrow: bool) -> QParams:
    qmin = (-(1 << bits - 1) if signed else 0) + narrow
    qmax = (1 << bits - 1) - 1 if signed else (1 << bits) - 1
    params = nudged_range(low, high, bits=bits, signed=signed, narrow_range=narrow)
    scale, zero_point = tensorflow_nudge(low, high, qmin, qmax)
    assert params.range == (qmin, qmax)
    assert F32(params.scale) == scale and params.zero_point == zero_point
    return params


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [
        (-1.0, 1.0, 127),  # 127.5 on paper, 127.49999 in float32
        (0.0, 6.0, 0),
        (-6.0, 0.0, 255),
        (1.0, 3.0, 0),  # beside zero: moved down to [0, 2]
        (-3.0, -1.0, 255),  # moved up
        (-1e-30, 2e-30, 85),
        (-1e30, 2e30, 85),
        (-0.1, 25.4, 1),
    ],
)
def test_nudged_range_is_tensorflows(low: float, high: float, zero_point: int):
    assert check_nudged(low, high, 8, signed=False, narrow=False).zero_point == zero_point
    for bits in (2, 4, 8, 16):
        for signed in (False, True):
            for narrow in (False, True):
                check_nudged(low, high, bits, signed, narrow)


def test_just_below_half_a_step_rounds_down():
    """floor(x + 0.5) and trunc(x + 0.5) in float32 would give 1 for the greatest float32 below 0.5."""
    low = -float(np.nextafter(F32(0.5), F32(0)))
    assert F32(F32(-low) + F32(0.5)) == 1
    assert check_nudged(low, F32(255.0 + low), 8, signed=False, narrow=False).zero_point == 0


float32s = st.floats(-(2.0**60), 2.0**60, width=32)


@given(float32s, float32s, st.integers(2, 16), st.booleans(), st.booleans())
def test_any_range_is_nudged_as_by_tensorflow(low: float, high: float, bits: int, signed: bool, narrow: bool):
    low, high = sorted((low, high))
    assume(high - low > 2.0**-80)
    check_nudged(low, high, bits, signed, narrow)


def test_nudged_ranges_per_channel_are_those_of_each_channel():
    low, high = [-1.0, -0.3, 0.0], [1.0, 2.0, 4.0]
    together = nudged_range(low, high, axis=1)
    for i in range(3):
        alone = nudged_range(low[i], high[i])
        assert together.scale[i] == alone.scale and together.zero_point[i] == alone.zero_point


def test_the_storage_of_a_nudged_range_is_the_least_that_holds_it():
    assert nudged_range(-1, 1, bits=4).dtype == "uint8"
    assert nudged_range(-1, 1, bits=8, signed=True).dtype == "int8"
    assert nudged_range(-1, 1, bits=9).dtype == "uint16"
    assert nudged_range(-1, 1, bits=16, signed=True).dtype == "int16"


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, 0.0), (math.nan, 1.0), (0.0, math.inf), ([0, 1], [1, 1])]
)
def test_an_empty_or_infinite_range_is_refused(low: float, high: float):
    with pytest.raises(InputError, match="is empty or not finite"):
        nudged_range(low, high, axis=0)


@pytest.mark.parametrize(("low", "high"), [(-3e38, 3e38), (0.0, 1e-45)])
def test_a_range_without_a_float32_step_is_refused(low: float, high: float):
    with pytest.raises(InputError, match="scale"):
        nudged_range(low, high)
