"""Deeploy's integer layer norm, softmax, gelu and mean, against their definitions in whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from tests.support.onnx_models import model, node
from tvm_qat import compile as compile_model
from tvm_qat import import_model
from tvm_qat.errors import InputError, UnsupportedError

F32 = np.float32
Array = np.ndarray[Any, Any]


def _tensors(**values: float) -> dict[str, Any]:
    return {name: numpy_helper.from_array(np.asarray([v], F32), name) for name, v in values.items()}


def _after_a_shift(kind: str, shape: tuple[int, ...], signed: int = 1, **attrs: Any) -> ModelProto:
    """RequantShift that changes nothing, the operator, and another that changes nothing."""
    names = " ".join(name for name in ("w", "b") if kind == "iLayerNorm")
    same = _tensors(div=1, n_levels_out=256, signed=signed)
    nodes = [
        node("RequantShift", "x one zero", "s", "shift", **same),
        node(kind, f"s {names}".strip(), "y", "approximation", **attrs),
    ]
    weights = {"w": np.arange(-40, 40)[: shape[-1]] * 7001.0, "b": np.arange(shape[-1]) * 900.0 - 20000}
    constants = {"one": F32(1), "zero": F32(0)} | {name: weights[name].astype(F32) for name in names.split()}
    return model(nodes, {"x": shape}, ["y"], constants, opset=13)


def _run(made: ModelProto, x: Array) -> Array:
    return compile_model(made, target="llvm").run({"x": x.astype(F32)})["y"]


def _data(*shape: int, low: int = -128, high: int = 128) -> Array:
    return np.random.default_rng(6).integers(low, high, shape)


def test_gelu_of_every_byte():
    x, b, one = np.arange(-128, 128), -40, 1743
    near = np.minimum(np.abs(x), -b) + b
    want = x * ((one + np.sign(x) * (one - near * near)) >> 1)
    np.testing.assert_array_equal(_run(_after_a_shift("iGELU", (256,), b=b, one=one), x), want)


def test_layer_norm_divides_as_c_does():
    x = _data(5, 3, 80)
    x[0, 0], x[0, 1] = 5, -128
    mean = np.trunc(x.sum(-1, keepdims=True) / 80).astype(np.int64)
    std = np.floor(np.sqrt(((x - mean) ** 2).sum(-1, keepdims=True) // 80 + 1)).astype(np.int64)
    weight, bias = np.arange(-40, 40) * 7001, np.arange(80) * 900 - 20000
    ratio = np.trunc((x - mean) * weight / std).astype(np.int64)
    want = np.clip((ratio + bias) >> 14, -128, 127)
    attrs = _tensors(D=1 << 14, n_levels=256)
    np.testing.assert_array_equal(_run(_after_a_shift("iLayerNorm", (5, 3, 80), **attrs), x), want)


def test_softmax_by_shifts():
    x = _data(4, 6, 50)
    x[0, 0] = 3
    shift = (x.max(-1, keepdims=True) - x + 16) >> 5
    want = (255 * 256 // (256 >> shift).sum(-1, keepdims=True)) >> shift
    made = _after_a_shift("ITAMax", (4, 6, 50), **_tensors(n_levels=256))
    np.testing.assert_array_equal(_run(made, x), want)


@pytest.mark.parametrize(("signed", "low", "high"), [(1, -128, 128), (0, 0, 256)])
def test_a_mean_rounds_halves_up(signed, low, high):
    x = _data(3, 4, 10, low=low, high=high)
    want = (2 * x.sum(1) + 4) // 8
    made = _after_a_shift("IntegerMean", (3, 4, 10), signed, axes=[1], keepdims=0)
    np.testing.assert_array_equal(_run(made, x), want)
    assert np.any(x.sum(1) % 4 == 2)


CASES = {
    "iGELU": {"b": -40, "one": 1743}, "ITAMax": _tensors(n_levels=256), "IntegerMean": {"axes": [0]},
    "iLayerNorm": _tensors(D=1 << 14, n_levels=256),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_data_of_unknown_width_is_refused(kind):
    made = _after_a_shift(kind, (4, 80), **CASES[kind])
    made.graph.node[1].input[0] = "x"
    with pytest.raises(UnsupportedError, match=f"'approximation' \\({kind}\\).*8 bits"):
        import_model(made)


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [
        ("iGELU", {"b": -40}),
        ("ITAMax", _tensors(n_levels=16)),
        ("iLayerNorm", _tensors(D=0, n_levels=256)),
        ("iLayerNorm", _tensors(D=16, n_levels=512)),
        ("IntegerMean", {"axes": [7]}),
        ("IntegerMean", {}),
    ],
)
def test_attributes_without_a_meaning_are_refused(kind, attrs):
    with pytest.raises(InputError, match=f"'approximation' \\({kind}\\)"):
        import_model(_after_a_shift(kind, (4, 80), **attrs))
