"""Graphs of whole numbers in float tensors (RequantShift, NEMO), and thresholds (MultiThreshold)."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support.onnx_models import model, node
from tests.support.run import imported, onnxruntime_outputs, simulate
from tvm_qat import compile as compile_model
from tvm_qat.errors import InputError

F32 = np.float32


def shift(inputs: str, output: str, div: float, levels: int = 256, signed: int = 1):
    values = {"div": div, "n_levels_out": levels, "signed": signed}
    attrs = {name: numpy_helper.from_array(np.asarray(v, F32), name) for name, v in values.items()}
    return node("RequantShift", inputs, output, output, **attrs)


def shifted(x, mul, add, div, low, high):
    """In whole numbers, as the format defines it."""
    wide = x.astype(np.int64) * mul.astype(np.int64) + add.astype(np.int64)
    return np.clip((2 * wide + div) // (2 * div), low, high)


@pytest.mark.parametrize(("signed", "low", "high"), [(1, -128, 127), (0, 0, 255)])
def test_requant_shift_is_that_of_whole_numbers(signed, low, high):
    mul, add = np.array([[257], [514], [64]]), np.array([[0], [40000], [-7]])
    constants = {"m": mul.astype(F32), "a": add.astype(F32)}
    made = model([shift("x m a", "y", 65536, 256, signed)], {"x": (2, 3, 50)}, ["y"], constants)
    x = np.random.default_rng(0).integers(-30000, 30000, (2, 3, 50))
    found = simulate(made, {"x": x.astype(F32)})["y"]
    np.testing.assert_array_equal(found, shifted(x, mul, add, 65536, low, high))


def test_a_network_of_whole_numbers_runs_on_integers():
    rng = np.random.default_rng(1)
    w, v = rng.integers(-20, 20, (8, 3, 3, 3)), rng.integers(-9, 9, (5, 128))
    nodes = [
        node("Conv", "x w", "c", "conv"),
        shift("c m z", "r", 65536, 256, 0),
        node("Add", "r r", "a", "add"),
        shift("a h z1", "s", 65536, 256, 0),
        node("Flatten", "s", "f"),
        node("Gemm", "f v", "y", "fc", transB=1),
    ]
    constants = {
        "w": w.astype(F32), "v": v.astype(F32), "m": np.full((8, 1, 1), 257, F32),
        "z": np.zeros((8, 1, 1), F32), "h": F32(32768), "z1": F32(0),
    }  # fmt: skip
    made = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants, opset=13)
    x = rng.integers(0, 256, (1, 3, 6, 6))
    package = compile_model(made, target="llvm")
    assert package.totals["int8_mac_share"] == 1
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
    sums = np.einsum("cyxij,ocij->oyx", windows, w)
    once = shifted(sums, np.array(257), np.array(0), 65536, 0, 255)
    twice = shifted(2 * once, np.array(32768), np.array(0), 65536, 0, 255)
    np.testing.assert_array_equal(package.run({"x": x.astype(F32)})["y"][0], v @ twice.reshape(-1))


def scaled_down(data: str, out: str, mul: int, div: int, low: float = 0.0) -> list:
    """NEMO's end of a layer, of integers between two casts."""
    return [
        node("Cast", data, f"{out}_i", f"{out}_i", to=7),
        node("Mul", f"{out}_i m{mul}", f"{out}_m", f"{out}_m"),
        node("Div", f"{out}_m d{div}", f"{out}_d", f"{out}_d"),
        node("Cast", f"{out}_d", f"{out}_f", f"{out}_f", to=1),
        node("Clip", f"{out}_f", out, f"{out}_c", min=low, max=255.0),
    ]


def nemo(weights: np.ndarray):
    """conv, batch norm with factors of any sign, division; a residual, floored; a pooled end."""
    rng = np.random.default_rng(3)
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Mul", "k c", "s", "bn.mul"),
        node("Add", "s l", "b", "bn.add"),
        *scaled_down("b", "q", 33, 65537),
        node("Mul", "q h", "q1", "q1"),
        node("Mul", "q h", "q2", "q2"),
        node("Add", "q1 q2", "sum", "sum"),
        node("Div", "sum e", "half", "half"),
        node("Floor", "half", "f", "floor"),
        node("Conv", "f v", "g", "second"),
        *scaled_down("g", "r", 33, 65537),
        node("AveragePool", "r", "p", "pool", kernel_shape=[2, 2]),
        node("Floor", "p", "whole", "whole"),
        node("Flatten", "whole", "flat", "flat"),
        node("Gemm", "flat fc zero", "y", "fc", transB=1),
    ]
    constants = {
        "w": weights, "v": rng.integers(-60, 60, (4, 8, 1, 1)), "fc": rng.integers(-60, 60, (3, 4)),
        "k": np.array([700, -300, 0, 2047, 1, 90, 1500, 33]).reshape(1, 8, 1, 1),
        "l": rng.integers(-900000, 900000, (1, 8, 1, 1)), "h": 32, "e": 64, "zero": np.zeros(3),
    }  # fmt: skip
    floats = {name: np.asarray(value, F32) for name, value in constants.items()}
    integers = {name: np.array(int(name[1:]), np.int64) for name in ("m33", "d65537")}
    return model(nodes, {"x": (1, 3, 4, 4)}, ["r", "y"], floats | integers, opset=9)


def test_nemos_graph_runs_on_integers_and_repeats_onnxruntime():
    rng = np.random.default_rng(4)
    made = nemo(rng.integers(-60, 60, (8, 3, 3, 3)))
    package = compile_model(made, target="llvm")
    assert package.totals["int8_mac_share"] == 1
    for _ in range(5):
        inputs = {"x": rng.integers(0, 256, (1, 3, 4, 4)).astype(F32)}
        expected, found = onnxruntime_outputs(made, inputs), package.run(inputs)
        assert np.count_nonzero(expected["r"]) > 0 and len(np.unique(expected["r"])) > 4
        for name, wanted in expected.items():
            np.testing.assert_array_equal(found[name], wanted)


def test_integer_divisions_beside_fractional_weights_say_nothing_of_the_inputs():
    """Fractions would be lost if the input were rounded."""
    made = nemo(np.random.default_rng(4).normal(size=(8, 3, 3, 3)))
    inputs = {"x": np.random.default_rng(5).normal(0, 100, (1, 3, 4, 4)).astype(F32)}
    expected, found = onnxruntime_outputs(made, inputs), compile_model(made, target="llvm").run(inputs)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)


def test_a_clip_of_fractions_stays_a_clip():
    """Only what was cast from integers, or floored, is known to be whole."""
    nodes = [
        node("Conv", "x w", "c", "conv"),
        *scaled_down("c", "q", 33, 65537),
        node("Mul", "q h", "z", "half"),
        node("Clip", "z", "y", "clip", min=0.0, max=100.0),
    ]
    constants = {"w": np.full((1, 1, 1, 1), 40, F32), "h": F32(0.5)}
    integers = {"m33": np.array(33, np.int64), "d65537": np.array(65537, np.int64)}
    made = model(nodes, {"x": (1, 1, 40, 40)}, ["y"], constants | integers, opset=9)
    x = np.arange(1600, dtype=F32).reshape(1, 1, 40, 40)
    expected = onnxruntime_outputs(made, {"x": x})["y"]
    assert np.any(expected != np.floor(expected))
    np.testing.assert_array_equal(compile_model(made, target="llvm").run({"x": x})["y"], expected)


@pytest.mark.parametrize(
    ("div", "levels"), [(0, 256), (-4, 256), (4, 1), (4, 255), (4, 1 << 17), (np.nan, 4)]
)
def test_ranges_that_make_no_sense_are_refused(div, levels):
    constants = {"m": F32(1), "a": F32(0)}
    made = model([shift("x m a", "y", div, levels)], {"x": (3,)}, ["y"], constants)
    with pytest.raises(InputError, match="'y' \\(RequantShift\\)"):
        imported(made)


def threshold(rows, shape=(2, 3, 4), **attrs):
    nodes = [node("MultiThreshold", "x t", "y", "mt", "finn.custom_op.general", out_dtype="INT4", **attrs)]
    return model(nodes, {"x": shape}, ["y"], {"t": np.asarray(rows, F32)})


@pytest.mark.parametrize(
    ("rows", "scale", "bias"),
    [
        ([[0]], 2.0, -1.0),
        ([[0.3]], 2.0, -1.0),
        ([[-1, 0, 2]], 1.0, 0.0),
        ([[-1, 0], [1, 2], [0, 0.5]], 1.0, -1.0),
        ([[-1, 0, 2]], 0.5, 0.25),
    ],
)
def test_thresholds_are_counted(rows, scale, bias):
    x = np.random.default_rng(2).integers(-6, 7, (2, 3, 4)).astype(F32) / 2
    attrs = {"out_scale": scale, "out_bias": bias, "data_layout": "NCW"}
    aligned = np.asarray(rows, F32)[:, None]
    want = scale * (x[..., None] >= aligned).sum(-1) + bias
    np.testing.assert_array_equal(simulate(threshold(rows, **attrs), {"x": x})["y"], want.astype(F32))


@pytest.mark.parametrize("rows", [[1, 2], [[float("nan")]], [[1], [2]], np.zeros((1, 256))])
def test_wrong_thresholds_are_refused(rows):
    with pytest.raises(InputError, match="'mt' \\(MultiThreshold\\)"):
        imported(threshold(rows, data_layout="NCW"))


def test_a_row_of_shifts_is_one_expression_of_bounded_size():
    """Each step reads its input several times; written into one another they once took minutes."""
    constants = {"m": np.full((3, 1), 257, F32), "a": F32(0), "o": F32(65536)}
    nodes = [shift("x m a", "p", 65536), *(shift(f"{i} o a", o, 65536) for i, o in ("pq", "qr", "ry"))]
    made = model(nodes, {"x": (2, 3, 50)}, ["y"], constants)
    x = np.random.default_rng(0).integers(-30000, 30000, (2, 3, 50))
    want = shifted(x, np.array(257), np.array(0), 65536, -128, 127)
    np.testing.assert_array_equal(compile_model(made, target="llvm").run({"x": x.astype(F32)})["y"], want)
