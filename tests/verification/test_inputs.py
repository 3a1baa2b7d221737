from __future__ import annotations

import numpy as np
import pytest

from tests.support.onnx_models import f32, model, node
from tvm_qat import import_model
from tvm_qat.errors import InputError
from tvm_qat.package import TensorInfo
from tvm_qat.package.signature import inputs_of
from tvm_qat.qparams import QParams
from tvm_qat.verification.inputs import cut, drawn

IMAGE = TensorInfo("image", (2, 3), "float32")
OPEN = TensorInfo("image", ("n", 3), "float32")
SCALE = TensorInfo("scale", (1,), "float32")


def test_samples_are_cut_into_the_models_batches():
    data = np.arange(18, dtype=np.float32).reshape(6, 3)
    runs = cut({"image": data}, [IMAGE])
    assert [run["image"].tolist() for run in runs] == [data[i : i + 2].tolist() for i in (0, 2, 4)]


def test_an_array_of_just_one_batch_is_used_each_time():
    runs = cut({"image": np.zeros((4, 3), np.float32), "scale": np.float32([7])}, [IMAGE, SCALE])
    assert [run["scale"].tolist() for run in runs] == [[7], [7]]


@pytest.mark.parametrize(("samples", "sizes"), [(1, [1]), (16, [8, 8]), (7, [7]), (11, [1] * 11)])
def test_an_open_batch_takes_equal_parts_of_at_most_eight(samples: int, sizes: list[int]):
    runs = cut({"image": np.zeros((samples, 3), np.float32)}, [OPEN])
    assert [len(run["image"]) for run in runs] == sizes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "no data for input 'image'"),
        ({"image": np.zeros((3, 3), np.float32)}, "got 3 samples; the model takes 2 at a time"),
        ({"image": np.zeros((2, 4), np.float32)}, r"got \[2, 4\] float32"),
        ({"image": np.zeros((2, 3))}, "float64"),
        ({"image": np.zeros((2, 3), np.float32), "other": np.zeros(1)}, "no input 'other'"),
        ({"image": np.zeros((0, 3), np.float32)}, "0 samples"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: dict, reason: str):
    with pytest.raises(InputError, match=reason):
        cut(data, [IMAGE])


def test_inputs_with_different_numbers_of_samples_are_refused():
    pair = [IMAGE, TensorInfo("mask", (2,), "float32")]
    with pytest.raises(InputError, match="different numbers of samples"):
        cut({"image": np.zeros((8, 3), np.float32), "mask": np.zeros(4, np.float32)}, pair)


def quantized_with_ids():
    nodes = [
        node("QuantizeLinear", "x s z", "q", "quantize"),
        node("DequantizeLinear", "q s z", "d", "dequantize"),
        node("Gather", "table ids", "g", "gather"),
        node("Add", "d g", "y", "add"),
    ]
    constants = {"s": f32(0.5), "z": np.array([-20], np.int8), "table": np.zeros((5, 3), np.float32)}
    return import_model(model(nodes, {"x": (1, 3), "ids": ((1,), 7)}, ["y"], constants))


def test_inputs_are_drawn_from_their_range_and_indices_from_their_table():
    mod = quantized_with_ids()
    infos = inputs_of(mod)
    made = drawn(mod, infos, 500, seed=1)
    assert made["x"].shape == (500, 3) and made["x"].dtype == np.float32
    low, high = -108 * 0.5, 147 * 0.5
    assert low <= made["x"].min() < low + 2 and high - 2 < made["x"].max() <= high
    assert sorted(set(made["ids"].tolist())) == [0, 1, 2, 3, 4]
    again = drawn(mod, infos, 500, seed=1)
    assert all(np.array_equal(made[name], again[name]) for name in made)
    assert not np.array_equal(made["x"], drawn(mod, infos, 500, seed=2)["x"])


def test_variables_of_a_model_are_left_as_they_begin():
    state = TensorInfo("state", (1, 2), "int8", QParams(np.array(0.1)), initial=3)
    (run,) = cut({}, [state])
    assert run["state"].tolist() == [[3, 3]]
