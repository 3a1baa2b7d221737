"""What each version of the schema says, as QParams."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.importers.encodings.aimet import VERSIONS, Grid, asymmetric, document, symmetric, written
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.encodings import read_encodings
from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams

KINDS = {
    "asymmetric": asymmetric(-1.0, 3.0),
    "asymmetric-4": asymmetric(-1.0, 3.0, bits=4),
    "asymmetric-16": asymmetric(-1.0, 3.0, bits=16),
    "symmetric": symmetric(2.0),
    "symmetric-4": symmetric(2.0, 4),
    "symmetric-16": symmetric(2.0, 16),
    "strict": symmetric(2.0, strict=True),
    "strict-4": symmetric(2.0, 4, strict=True),
    "unsigned": symmetric(2.0, unsigned=True),
    "positive": asymmetric(0.0, 3.0),
    "negative": asymmetric(-3.0, 0.0),
    "channels": Grid((0.5, 0.25, 1.0), (-128, -128, -128), 8, True, 0, True),
    "channels-asymmetric": Grid((0.5, 0.25), (-3, -200), 8, False, 0, True),
    "channels-strict": Grid((0.5, 0.25), (-127, -127), 8, True, 0, True),
}


def read(tmp_path, content):
    return read_encodings(written(tmp_path, content)).entries


def one(tmp_path, version, kind):
    return read(tmp_path, document(version, {"x": KINDS[kind]}))["x"]


@pytest.mark.parametrize(
    ("version", "kind"), [(v, k) for v in VERSIONS for k in KINDS if v != "2.0.0" or "strict" not in k]
)
def test_every_grid_means_what_aimet_simulates(tmp_path, version, kind):
    grid, found = KINDS[kind], one(tmp_path, version, kind)
    reach = max(np.abs(grid.offset)) * max(grid.scale)
    x = (
        np.linspace(-1.5 * reach - 3, 1.5 * reach + 3, 60_000)
        .astype(np.float32)
        .reshape(-1, len(grid.scale))
        .T
    )
    expected = grid.fake_quantized(x)
    params = found.params
    np.testing.assert_array_equal(arithmetic.dequantize(arithmetic.quantize(x, params), params), expected)
    assert found.rounding == "half_even"


def test_strict_symmetric_of_version_2_is_read_as_onnx_means_it(tmp_path):
    """AIMET shifts the zero point to -1 there; the schema has no narrow range."""
    params = one(tmp_path, "2.0.0", "strict").params
    assert (params.dtype, int(params.zero_point), params.range) == ("int8", -1, (-128, 127))


@pytest.mark.parametrize("version", VERSIONS[:3])
def test_storage_is_the_simplest_that_holds_the_grid(tmp_path, version):
    def storage(kind):
        params = one(tmp_path, version, kind).params
        return params.dtype, params.range, params.zero_point.tolist()

    assert storage("symmetric") == ("int8", (-128, 127), 0)
    assert storage("strict") == ("int8", (-127, 127), 0)
    assert storage("unsigned") == ("uint8", (0, 255), 0)
    assert storage("symmetric-4") == ("int8", (-8, 7), 0)
    assert storage("asymmetric-4") == ("uint8", (0, 15), 4)
    assert storage("symmetric-16") == ("int16", (-32768, 32767), 0)
    assert storage("asymmetric-16")[:2] == ("uint16", (0, 65535))
    assert storage("channels-strict") == ("int8", (-127, 127), [0, 0])


def test_strict_symmetric_may_be_told_by_min_alone(tmp_path):
    channel = {"bitwidth": 8, "dtype": "int", "is_symmetric": "True", "scale": 0.5, "offset": -128}
    channel |= {"min": -63.5, "max": 63.5}
    content = {"version": "0.6.1", "activation_encodings": {"x": [channel]}, "param_encodings": {}}
    assert read(tmp_path, content)["x"].params.range == (-127, 127)


def test_a_learned_range_between_two_steps_counts_by_its_offset(tmp_path):
    channel = {"bitwidth": 8, "dtype": "int", "is_symmetric": "False", "scale": 0.5, "offset": -3}
    channel |= {"min": -1.7, "max": 125.8}
    params = read(tmp_path, {"version": "0.6.1", "activation_encodings": {"x": [channel]}})["x"].params
    assert params == QParams(0.5, 3, "uint8")


@pytest.mark.parametrize("version", VERSIONS[:3])
@pytest.mark.parametrize("bits", [16, 32])
def test_float_entries_stay_in_float(tmp_path, version, bits):
    found = read(tmp_path, document(version, {}, {"x": bits}))["x"]
    assert (found.params, found.kind) == (None, f"float{bits}")


def test_a_bias_of_32_bits(tmp_path):
    entry = {"name": "b", "output_dtype": "int32", "y_scale": [0.5, 0.25], "axis": 0}
    assert read(tmp_path, {"version": "2.0.0", "encodings": [entry]})["b"].params.dtype == "int32"
    old = {"name": "b", "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 32, "is_sym": True, "scale": [0.5]}
    content = {"version": "1.0.0", "param_encodings": [{**old, "offset": [-(2**31)]}]}
    assert read(tmp_path, content)["b"].params == QParams(0.5, 0, "int32")


def test_version_2_1_is_read_where_it_says_what_2_0_does(tmp_path):
    entry = {"name": "x", "output_dtype": "uint8", "y_scale": [[0.5]], "y_zero_point": 3}
    assert read(tmp_path, {"version": "2.1.0", "encodings": [entry]})["x"].params == QParams(0.5, 3, "uint8")


V1 = {
    "name": "x",
    "enc_type": "PER_TENSOR",
    "dtype": "INT",
    "bw": 8,
    "is_sym": False,
    "scale": [0.5],
    "offset": [0],
}
V2 = {"name": "x", "output_dtype": "int8", "y_scale": 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**V1, "enc_type": "PER_BLOCK", "block_size": 32}, "blockwise"),
        ({**V1, "enc_type": "LPBQ"}, "blockwise"),
        ({**V1, "zero_point_shift": [0.5]}, "zero points between two steps"),
        ({**V1, "bw": 1}, "integers of 1 bits"),
        ({**V1, "bw": 24}, "integers of 24 bits"),
        ({**V1, "bw": -2}, "integers of -2 bits"),
        ({**V1, "bw": 1 << 32}, "integers of 4294967296 bits"),
        ({**V1, "dtype": "FLOAT", "bw": 8}, "quantization to float8"),
        ({**V2, "block_size": 32}, "blockwise"),
        ({**V2, "y_scale": {"x": [[1]], "x_scale": 1.0}}, "blockwise"),
        ({**V2, "output_dtype": "float8e4m3fn"}, "quantization to float8e4m3fn"),
        ({**V2, "output_dtype": "uint32"}, "unsigned integers of 32 bits"),
    ],
)
def test_what_is_valid_but_not_supported(tmp_path, entry, message):
    content = (
        {"version": "1.0.0", "param_encodings": [entry]}
        if "bw" in entry
        else {"version": "2.0.0", "encodings": [entry]}
    )
    with pytest.raises(UnsupportedError, match=rf"model\.encodings: encoding of 'x': .*{message}"):
        read(tmp_path, content)


def test_an_unknown_version_names_the_known_ones(tmp_path):
    with pytest.raises(UnsupportedError, match=r"version '3.0.0' of encodings is not known; known are 0.5.0"):
        read(tmp_path, {"version": "3.0.0", "encodings": []})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**V1, "scale": [0.0]}, "scale 0 is not positive"),
        ({**V1, "scale": [-1]}, "scale -1 is not positive"),
        ({**V1, "scale": [1e300]}, r"scale 1e\+300 is beyond float32"),
        ({**V1, "scale": ["a"]}, 'scale is "a", not a number'),
        ({**V1, "scale": [True]}, "scale is true, not a number"),
        ({**V1, "scale": []}, "scale is an empty list"),
        ({**V1, "scale": [10**400]}, "scale is not finite"),
        ({**V1, "scale": [0.5, 0.5]}, "it is per tensor but has 2 scales"),
        ({**V1, "offset": [5]}, "offset 5 puts zero off its grid"),
        ({**V1, "offset": [-256]}, "offset -256 puts zero off its grid"),
        ({**V1, "offset": [-0.5]}, "offset is -0.5, not a whole number"),
        ({**V1, "offset": [-1, -2]}, "offset has 2 values for 1 scales"),
        ({**V1, "offset": [10**30]}, "not a whole number of 32 bits"),
        ({**V1, "bw": "8"}, 'bw is "8", not a number'),
        ({**V1, "bw": None}, "bw is null"),
        ({**V1, "is_sym": "yes"}, 'is_sym is "yes", not true or false'),
        ({**V1, "dtype": 3}, "dtype is 3, not a string"),
        ({**V1, "dtype": "COMPLEX"}, "dtype 'complex' is neither int nor float"),
        ({k: v for k, v in V1.items() if k != "scale"}, "it has no scale"),
        ({**V2, "y_zero_point": 128}, r"y_zero_point is outside \[-128, 127\]"),
        ({**V2, "y_scale": [0.5, 0.5]}, "it has no axis"),
        ({**V2, "y_scale": [0.5, 0.5], "axis": 0, "y_zero_point": [1, 2, 3]}, "3 values for 2 scales"),
        ({**V2, "qmin": 9, "qmax": 3}, r"range \[9, 3\] does not fit int8"),
        ({**V2, "rounding": "up"}, "rounding 'up' is not known"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, entry, message):
    group = "param_encodings" if "bw" in entry else "encodings"
    with pytest.raises(InputError, match=rf"^model\.encodings: encoding of 'x': .*{message}") as caught:
        read(tmp_path, {"version": "1.0.0" if "bw" in entry else "2.0.0", group: [entry]})
    assert "\n" not in str(caught.value)


OLD = {
    "bitwidth": 8,
    "dtype": "int",
    "is_symmetric": "False",
    "scale": 0.5,
    "offset": 0,
    "min": 0.0,
    "max": 127.5,
}


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"output": {"0": OLD}}, "use the encodings that AIMET exports for the ONNX model"),
        ([], "not a list of objects"),
        ([3], "3 is not an object"),
        ([OLD, {**OLD, "bitwidth": 4}], "its channels differ"),
        ([{**OLD, "max": 3.0}], "its min and max contradict its scale and offset"),
        ([{**OLD, "scale": [0.5, 0.5]}], "scale has 2 values, not one"),
        (
            [{**OLD, "is_symmetric": "True", "offset": o, "min": o / 2, "max": 63.5} for o in (-128, -127)],
            "some of its channels are strict symmetric",
        ),
    ],
)
def test_what_is_wrong_in_old_versions(tmp_path, channels, message):
    content = {"version": "0.5.0", "activation_encodings": {"x": channels}, "param_encodings": {}}
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "it has no version"),
        ('{"version": 2}', "version is 2, not a string"),
        ('{"version": "2.0.0"}', "it has no encodings"),
        ('{"version": "2.0.0", "encodings": {}}', "encodings is not a list"),
        ('{"version": "2.0.0", "encodings": [1]}', "1 is not an object"),
        ('{"version": "2.0.0", "encodings": [{}]}', "it has no name"),
        ('{"version": "1.0.0"}', "it has neither activation_encodings nor param_encodings"),
        ('{"version": "0.6.1", "param_encodings": []}', r"\[\] is not an object"),
        ('{"version": "2.0.0", "version": "1.0.0"}', "'version' stands there twice"),
        ('{"version": "2.0.0", "encodings": [NaN]}', "NaN is no number"),
        ('{"version": "2.0.0", "encodings": [-Infinity]}', "-Infinity is no number"),
        (
            json.dumps({"version": "2.0.0", "encodings": [V2]}).replace("0.5", "1e999"),
            ".*y_scale is not finite",
        ),
        ('{"version": 1' + "0" * 5000 + "}", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "model.encodings"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"^model\.encodings: {message}") as caught:
        read_encodings(path)
    assert "\n" not in str(caught.value)


def test_a_tensor_with_two_encodings_is_refused(tmp_path):
    content = {"version": "1.0.0", "activation_encodings": [V1], "param_encodings": [V1]}
    with pytest.raises(InputError, match="tensor 'x' has two encodings"):
        read(tmp_path, content)
    with pytest.raises(InputError, match="tensor 'x' has two encodings"):
        read(tmp_path, {"version": "2.0.0", "encodings": [V2, V2]})
