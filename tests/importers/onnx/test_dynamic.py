"""Dynamic quantization: parameters computed from the data."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.onnx_models import model, node
from tests.support.run import check_against_onnxruntime, simulate

DYNAMIC = [node("DynamicQuantizeLinear", "x", "y s z")]


def test_values_scale_and_zero_point():
    check_against_onnxruntime(model(DYNAMIC, {"x": (3, 4)}, ["y", "s", "z"], opset=11), rtol=0)


@pytest.mark.parametrize("data", [[0, 0, 0], [1, 2, 3], [-1, -2, -3], [-1, 0, 254], [0.5, 1e30, -1e30]])
def test_ranges_that_do_not_hold_zero_or_are_empty(data):
    made = model(DYNAMIC, {"x": (3,)}, ["y", "s", "z"], opset=11)
    found = simulate(made, {"x": np.array(data, np.float32)})
    least, most = np.float32(min(0, *data)), np.float32(max(0, *data))
    scale = np.float32((most - least) / np.float32(255)) if most > least else np.float32(1)
    zero_point = np.rint(np.clip(-least / scale, 0, 255))
    assert found["s"] == scale and found["z"] == zero_point
    expected = np.clip(np.rint(np.array(data, np.float32) / scale) + zero_point, 0, 255)
    np.testing.assert_array_equal(found["y"], expected.astype(np.uint8))


def test_chain_as_onnxruntime_exports_it():
    nodes = [
        *[node("DynamicQuantizeLinear", "x", "q s z")],
        node("MatMulInteger", "q w z zw", "t"),
        node("Cast", "t", "f", to=1),
        node("Mul", "s sw", "m"),
        node("Mul", "f m", "y"),
    ]
    weight = np.random.default_rng(1).integers(-128, 127, (4, 5)).astype(np.int8)
    constants = {"w": weight, "zw": np.int8(0), "sw": np.float32(0.01)}
    check_against_onnxruntime(model(nodes, {"x": ("batch", 4)}, ["y"], constants, opset=13))
