"""What single operators do not show: names, fake quantization, variables, signatures, float parts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.tflite_models import constant, graph, litert, model, one, operator, tensor
from tvm_qat import compile as compile_model
from tvm_qat import inspect, pipeline
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.ir import op_name
from tvm_qat.verification.evaluate import evaluate_module

RNG = np.random.default_rng(3)


def _simulated(content, arrays, **options):
    return evaluate_module(pipeline.run(import_model(content, **options)), arrays)


def test_a_sum_is_rounded_once():
    """By its definition: LiteRT 2.3's reference kernel of SUM rescales partial sums and is far off."""
    tensors = [
        tensor("x", (4, 9), "int8", 0.05, 3),
        constant("a", np.array([1], np.int32)),
        tensor("y", (4,), "int8", 0.3, -4),
    ]
    x = RNG.integers(-128, 128, (4, 9)).astype(np.int8)
    (found,) = _simulated(one("SUM", tensors, "ReducerOptions", keepDims=False), [x])
    exact = (x.astype(np.int64) - 3).sum(axis=1) * np.float32(0.05) / np.float32(0.3) - 4
    assert np.abs(found - np.clip(exact, -128, 127)).max() <= 0.5001


@pytest.mark.parametrize(("bits", "narrow"), [(8, False), (4, False), (16, False), (8, True)])
def test_fake_quant_keeps_its_bits_and_range(bits, narrow):
    tensors = [tensor("x", (64, 8), "float32"), tensor("y", (64, 8), "float32")]
    content = one(
        "FAKE_QUANT", tensors, "FakeQuantOptions", min=-1.3, max=2.1, numBits=bits, narrowRange=narrow
    )
    x = (2 * RNG.standard_normal((64, 8))).astype(np.float32)
    (found,) = _simulated(content, [x])
    step = 3.4 / (2**bits - 1 - narrow)
    assert np.abs(found - np.clip(x, -1.3, 2.1)).max() <= 1.01 * step
    assert len(np.unique(found)) <= 2**bits - narrow
    if not narrow:  # which LiteRT refuses
        np.testing.assert_allclose(found, litert(content, [x])[0], rtol=0, atol=1e-6)


def test_a_fused_activation_narrows_the_range():
    tensors = [
        tensor("x", (4,), "int8", 0.05),
        tensor("r", (4,), "int8", 0.05),
        tensor("y", (4,), "int8", 0.1, -20),
    ]
    mod = import_model(one("ADD", tensors, "AddOptions", fusedActivationFunction=3))
    quantize = [b.value for b in mod["main"].body.blocks[0].bindings if op_name(b.value) == "qnn.quantize"]
    assert [(c.attrs["qmin"], c.attrs["qmax"]) for c in quantize] == [(-20, 40)]


def _streaming() -> bytes:
    """y = x + v; v = y: a running sum that begins at 5 (in integers)."""
    state = [
        tensor("handle", (), "resource"),
        tensor("x", (1, 3), "int8", 0.1),
        tensor("v", (1, 3), "int8", 0.1),
        tensor("y", (1, 3), "int8", 0.1),
    ]
    name = {"sharedName": "memory", "container": ""}
    main = graph(
        state,
        [
            operator("CALL_ONCE", [], [], "CallOnceOptions", initSubgraphIndex=1),
            operator("VAR_HANDLE", [], [0], "VarHandleOptions", **name),
            operator("READ_VARIABLE", [0], [2], "ReadVariableOptions"),
            operator("ADD", [1, 2], [3], "AddOptions"),
            operator("ASSIGN_VARIABLE", [0, 3], [], "AssignVariableOptions"),
        ],
        [1],
        [3],
    )
    begin = [tensor("handle", (), "resource"), constant("begin", np.full((1, 3), 5, np.int8), 0.1)]
    init = graph(
        begin,
        [
            operator("VAR_HANDLE", [], [0], "VarHandleOptions", **name),
            operator("ASSIGN_VARIABLE", [0, 1], [], "AssignVariableOptions"),
        ],
        [],
        [],
    )
    return model(main, init)


def test_variables_become_inputs_and_outputs():
    package = compile_model(_streaming())
    assert [(i.name, i.initial) for i in package.inputs] == [("x", None), ("memory", 5)]
    assert [o.name for o in package.outputs] == ["y", "memory"]
    x = np.array([[1, 2, 3]], np.int8)
    first = package.run({"x": x})
    np.testing.assert_array_equal(first["y"], x + 5)
    np.testing.assert_array_equal(package.run([x])["y"], x + 5)
    np.testing.assert_array_equal(package.run({"x": x, "memory": first["memory"]})["y"], 2 * x + 5)


def test_another_batch_passes_a_reshape_that_names_the_old_one():
    shape = constant("s", np.array([1, 6], np.int32))
    content = one("RESHAPE", [tensor("x", (1, 2, 3), "int8", 0.1), shape, tensor("y", (1, 6), "int8", 0.1)])
    x = RNG.integers(-128, 128, (5, 2, 3)).astype(np.int8)
    (found,) = _simulated(content, [x], input_shapes={"x": [5, 2, 3]})
    np.testing.assert_array_equal(found, x.reshape(5, 6))
    for wrong in ({"x": [5, 2]}, {"x": [0, 2, 3]}, {"z": [1]}):
        with pytest.raises(InputError, match="input"):
            import_model(content, input_shapes=wrong)


def test_a_signature_is_chosen_by_its_key():
    def part(kind):
        tensors = [tensor(n, (4,), "int8", 0.1) for n in ("x", "r", "y")]
        return graph(tensors, [operator(kind, [0, 1], [2], f"{kind.title()}Options")], [0, 1], [2])

    content = model(part("ADD"), part("SUB"), signatures={"plus": 0, "minus": 1})
    x, r = np.array([10, 20, 30, 40], np.int8), np.array([1, 2, 3, 4], np.int8)
    for key, expected in ((None, x + r), ("plus", x + r), ("minus", x - r)):
        np.testing.assert_array_equal(_simulated(content, [x, r], signature=key)[0], expected)
    with pytest.raises(InputError, match="has no signature 'times', only: plus, minus"):
        import_model(content, signature="times")


def test_weights_alone_may_be_quantized():
    """Dynamic range: the weight is dequantized, and the sum stays in float with a reason."""
    weight = constant(
        "w", RNG.integers(-127, 128, (5, 4)).astype(np.int8), RNG.uniform(0.01, 0.02, 5).tolist()
    )
    bias = constant("b", RNG.standard_normal(5).astype(np.float32))
    tensors = [tensor("x", (2, 4), "float32"), weight, bias, tensor("y", (2, 5), "float32")]
    content = one("FULLY_CONNECTED", tensors, "FullyConnectedOptions", fusedActivationFunction=1)
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    (found,) = _simulated(content, [x])
    real = weight.values * np.asarray(weight.quantization.scale)[:, None]
    np.testing.assert_allclose(found, np.maximum(x @ real.T + bias.values, 0), rtol=1e-5, atol=1e-6)
    reasons = [layer.reason for layer in inspect(content).layers if not layer.integer]
    assert any("its input is not quantized" in reason for reason in reasons)


def test_all_operators_without_translation_are_named_at_once():
    tensors = [tensor(name, (4,), "float32") for name in ("x", "first", "second", "third", "y")]
    kinds = ("SIGN", [0], [1]), ("RELU", [1], [2]), ("ATAN2", [2, 0], [3]), ("BITCAST", [3], [4])
    content = model(graph(tensors, [operator(*kind) for kind in kinds], [0], [4]))
    listed = r"operators without a translation: ATAN2 \('third'\), BITCAST \('y'\), SIGN \('first'\);"
    with pytest.raises(UnsupportedError, match=listed):
        import_model(content)
