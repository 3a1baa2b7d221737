"""QONNX operators against the formulas of its specification, written out here once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.onnx_models import f32, model, node
from tests.support.run import imported, simulate
from tvm_qat import compile as compile_model
from tvm_qat import inspect
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.importers.onnx.qonnx import DOMAINS

F32 = np.float32
MODES: dict[str, Callable[[Any], Any]] = {
    "ROUND": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "ROUND_TO_ZERO": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + F32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - F32(0.5)),
    "round": np.round,
}


def bounds(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def expected(x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
    """The specification's Quant."""
    scale, zero = np.asarray(scale, F32), np.asarray(zero, F32)
    q = np.clip((x / scale + zero).astype(F32), *bounds(bits, bool(signed), bool(narrow)))
    return ((MODES[rounding_mode](q) - zero) * scale).astype(F32)


def quant(scale, zero, bits, shape=("n", 3, 4), op="Quant", domain=DOMAINS[1], **attrs):
    constants = {"s": np.asarray(scale, F32), "z": np.asarray(zero, F32), "b": f32(bits)}
    return model([node(op, "x s z b", "y", "quant", domain, **attrs)], {"x": shape}, ["y"], constants)


def values() -> np.ndarray:
    """Quarters, so that ties are among them, and random ones."""
    random = np.random.default_rng(0).normal(0, 8, 480)
    return np.concatenate([np.arange(-240, 240) / 16, random]).astype(F32).reshape(-1, 3, 4)


@pytest.mark.parametrize("rounding_mode", MODES)
@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize(
    ("bits", "signed", "narrow"), [(4, 1, 0), (2, 1, 1), (8, 0, 0), (3, 0, 1), (12, 1, 0)]
)
def test_quant_is_that_of_the_specification(bits, signed, narrow, zero, rounding_mode):
    attrs = {"signed": signed, "narrow": narrow, "rounding_mode": rounding_mode}
    found = simulate(quant(0.25, zero, bits, **attrs), {"x": values()})["y"]
    np.testing.assert_array_equal(found, expected(values(), 0.25, zero, bits, **attrs))


@pytest.mark.parametrize("bits", range(1, 17))
def test_every_width_is_exact(bits):
    x = values() * F32(2.0 ** max(0, bits - 7))
    for signed in (0, 1) if bits > 1 else (0,):
        found = simulate(quant(0.3, 0, bits, signed=signed), {"x": x})["y"]
        np.testing.assert_array_equal(found, expected(x, 0.3, 0, bits, signed))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_all_names_of_the_domain_are_known(domain, op):
    found = simulate(quant(0.5, 0, 4, op=op, domain=domain), {"x": values()})["y"]
    np.testing.assert_array_equal(found, expected(values(), 0.5, 0, 4))


@pytest.mark.parametrize(
    ("scale", "zero"),
    [
        (np.reshape([0.5, 0.25, 1], (3, 1)), 0),
        (np.reshape([0.5, 0.25, 1], (1, 3, 1)), np.reshape([1, 0, -2], (1, 3, 1))),
        (0.5, [1, 2, 3, 4]),
        ([[[0.5]]], [0]),
    ],
)
def test_parameters_broadcast(scale, zero):
    found = simulate(quant(scale, zero, 5), {"x": values()})["y"]
    np.testing.assert_array_equal(found, expected(values(), scale, zero, 5))


@pytest.mark.parametrize("domain", DOMAINS)
def test_bipolar_quant_gives_two_values(domain):
    x = np.concatenate([values().reshape(-1), F32([0.0, -0.0, 1e-30])])
    made = model([node("BipolarQuant", "x s", "y", "", domain)], {"x": ("n",)}, ["y"], {"s": f32(0.5)})
    found = simulate(made, {"x": x})["y"]
    np.testing.assert_array_equal(found, np.where(x >= 0, F32(0.5), F32(-0.5)))


def test_one_signed_bit_is_bipolar():
    found = simulate(quant(0.25, 0, 1), {"x": values()})["y"]
    np.testing.assert_array_equal(found, np.where(values() >= 0, F32(0.25), F32(-0.25)))


@pytest.mark.parametrize("rounding_mode", ["FLOOR", "ROUND", "CEIL", "ROUND_TO_ZERO"])
def test_the_first_trunc_drops_bits(rounding_mode):
    constants = {"s": f32(0.125), "z": f32(0), "i": f32(8), "o": f32(5)}
    made = model(
        [node("Trunc", "x s z i o", "y", "", DOMAINS[1], rounding_mode=rounding_mode)],
        {"x": (80, 3, 4)}, ["y"], constants,
    )  # fmt: skip
    whole = np.round(values() / F32(0.125)) / F32(8)
    found = simulate(made, {"x": values()})["y"]
    np.testing.assert_array_equal(found, (MODES[rounding_mode](whole) * F32(0.125)).astype(F32))


@pytest.mark.parametrize(("signed", "narrow"), [(1, 0), (1, 1), (0, 0)])
def test_the_second_trunc_has_a_scale_of_its_result_and_a_range(signed, narrow):
    constants = {"s": f32(0.125), "z": f32(0), "i": f32(8), "t": f32(1), "o": f32(4)}
    attrs = {"rounding_mode": "FLOOR", "signed": signed, "narrow": narrow}
    made = model(
        [node("Trunc", "x s z i t o", "y", "", DOMAINS[1], **attrs)], {"x": (80, 3, 4)}, ["y"], constants
    )
    steps = np.clip(np.round(values() / F32(0.125)) / 8, *bounds(4, bool(signed), bool(narrow)))
    np.testing.assert_array_equal(simulate(made, {"x": values()})["y"], np.floor(steps).astype(F32))


# ---------------------------------------------------------------- folding and compiled code


def layers(rounding_mode: str = "ROUND", *, bipolar: bool = False):
    """Quant -> Conv with quantized weights -> Relu -> Quant -> Conv, all below 8 bits."""
    rng = np.random.default_rng(3)
    act = node("BipolarQuant", "c s2", "r", "act", DOMAINS[1]) if bipolar else node(
        "Quant", "c s2 z b", "r", "act", DOMAINS[1], signed=1, rounding_mode=rounding_mode
    )  # fmt: skip
    nodes = [
        node("Quant", "x s1 z b", "xq", "in", DOMAINS[1]),
        node("Quant", "w1 s1 z b", "w1q", "w1", DOMAINS[1], narrow=1),
        node("Conv", "xq w1q", "c", "conv1", pads=[1, 1, 1, 1]),
        act,
        node("Quant", "w2 s1 z b", "w2q", "w2", DOMAINS[1], narrow=1),
        node("Conv", "r w2q", "y", "conv2"),
    ]
    constants = {
        "s1": f32(0.125), "s2": f32(0.5), "z": f32(0), "b": f32(4),
        "w1": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(F32),
        "w2": rng.normal(0, 0.5, (4, 8, 1, 1)).astype(F32),
    }  # fmt: skip
    return model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants)


@pytest.mark.parametrize("rounding_mode", [m for m in MODES if m != "round"])
def test_compiled_sums_round_as_the_model_says(rounding_mode):
    """With these scales every product is exact, so that even the directed roundings must agree."""
    made = layers(rounding_mode)
    x = {"x": np.random.default_rng(4).normal(0, 1, (1, 3, 6, 6)).astype(F32)}
    package = compile_model(made, target="llvm")
    assert package.totals["int8_mac_share"] == 1
    np.testing.assert_array_equal(package.run(x)["y"], simulate(made, x)["y"])
    rows = {row.name: row for row in inspect(made).layers}
    assert rows["conv1"].integer and rows["conv2"].integer


def test_compiled_bipolar_activations_stay_integers():
    made = layers(bipolar=True)
    x = {"x": np.random.default_rng(4).normal(0, 1, (1, 3, 6, 6)).astype(F32)}
    package = compile_model(made, target="llvm")
    assert package.totals["int8_mac_share"] == 1 and package.totals["float_operators"] == 0
    np.testing.assert_array_equal(package.run(x)["y"], simulate(made, x)["y"])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bits": 17}, "17 bits are not supported"),
        ({"bits": 0}, "bit width is 0"),
        ({"bits": 2.5}, "no single whole number"),
        ({"bits": float("nan")}, "no single whole number"),
        ({"zero": 0.5}, "zero point is no 16-bit whole number"),
        ({"zero": float("nan")}, "zero point is no 16-bit whole number"),
        ({"scale": 0}, "scale 0 is not positive"),
        ({"scale": -1}, "scale -1 is not positive"),
        ({"scale": float("inf")}, "scale inf is not finite"),
        ({"scale": np.ones((3, 4))}, "varies along several axes"),
        ({"scale": np.ones((5, 1))}, "does not broadcast"),
        ({"scale": np.ones((0,))}, "scale is empty"),
        ({"rounding_mode": "STOCHASTIC"}, "rounding_mode 'STOCHASTIC' is not known"),
        ({"bits": 1, "signed": 0, "narrow": 1}, "holds one value only"),
        ({"bits": 1, "zero": 1}, "one signed bit with a zero point"),
    ],
)
def test_what_is_wrong_is_refused_with_the_node(options, reason):
    made = quant(**{"scale": 0.5, "zero": 0, "bits": 4} | options)
    with pytest.raises(InputError, match=f"node 'quant' \\(Quant\\): .*{reason}"):
        imported(made)


def test_a_scale_computed_at_run_time_is_refused():
    constants = {"z": f32(0), "b": f32(4)}
    made = model([node("Quant", "x x z b", "y", "q", DOMAINS[1])], {"x": ()}, ["y"], constants)
    with pytest.raises(UnsupportedError, match="scale is computed at run time"):
        import_model(made)


def test_a_missing_bit_width_is_refused():
    made = model([node("Quant", "x s z", "y", "q")], {"x": ()}, ["y"], {"s": f32(1), "z": f32(0)})
    with pytest.raises(InputError, match=r"'q' \(Quant\): input 3 is missing"):
        import_model(made)
