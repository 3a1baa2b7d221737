"""Names, domains, functions, order and shapes of inputs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.support.onnx_models import f32, model, ms, node
from tests.support.run import imported, simulate
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.ir import bindings_of, op_name, shape_of, source_of, tvm


def sources(mod):
    return [(op_name(b.value), source_of(b.value)) for b in bindings_of(mod["main"]) if op_name(b.value)]


def test_source_names_reach_every_binding_of_a_node():
    nodes = [
        node("Gemm", "x w b", "g", "dense", transB=1),
        node("Relu", "g", "r"),
        node("HardSigmoid", "r", "h", "gate"),
        node("Einsum", "h", "y", "einsum", equation="ij->ji"),
    ]
    constants = {"w": np.ones((5, 4), np.float32), "b": np.ones(5, np.float32)}
    mod = imported(model(nodes, {"x": (2, 4)}, ["y"], constants, opset=13))
    assert [source for _, source in sources(mod)] == [
        "dense", "dense", "dense", "r", "gate", "gate", "gate", "einsum",
    ]  # fmt: skip


def test_equal_node_names_are_made_distinct():
    nodes = [node("Relu", "x", "a", "n"), node("Neg", "a", "y", "n")]
    assert [s for _, s in sources(imported(model(nodes, {"x": (2,)}, ["y"])))] == ["n", "n#1"]


def test_input_and_output_names_are_kept_as_they_are():
    made = model([node("Relu", "input.1:0", "out/put:0")], {"input.1:0": (2,)}, ["out/put:0"])
    func = imported(made)["main"]
    assert [str(n) for n in func.attrs["input_names"]] == ["input.1:0"]
    assert [str(n) for n in func.attrs["output_names"]] == ["out/put:0"]
    assert func.params[0].name == "input_1_0"


def test_inputs_whose_identifiers_collide():
    made = model([node("Add", "a.b a:b", "y")], {"a.b": (2,), "a:b": (2,)}, ["y"])
    names = [param.name for param in imported(made)["main"].params]
    assert len(set(names)) == 2


def test_an_initializer_that_is_listed_as_input_is_a_constant():
    made = model([node("Add", "x w", "y")], {"x": (2,), "w": (2,)}, ["y"], {"w": f32(1, 2)})
    func = imported(made)["main"]
    assert len(func.params) == 1


def test_unsorted_nodes_are_sorted():
    nodes = [node("Neg", "a", "y"), node("Relu", "x", "a")]
    found = simulate(model(nodes, {"x": (2,)}, ["y"]), {"x": f32(-1, 2)})["y"]
    np.testing.assert_array_equal(found, [0, -2])


def test_a_foreign_domain_is_not_the_operator_of_the_same_name():
    made = model([node("Relu", "x", "y", "mine", "my.domain")], {"x": (2,)}, ["y"], domains={"my.domain": 1})
    with pytest.raises(UnsupportedError, match=r"my\.domain\.Relu \('mine'\)"):
        import_model(made)


def test_the_domain_ai_onnx_is_the_default_one():
    made = model([node("Relu", "x", "y", "", "ai.onnx")], {"x": (2,)}, ["y"], domains={"ai.onnx": 21})
    np.testing.assert_array_equal(simulate(made, {"x": f32(-1, 2)})["y"], [0, 2])


def test_all_unsupported_operators_are_reported_at_once():
    nodes = [
        node("If", "x", "a", "branch"), node("NoQuant", "x", "b", "brevitas", "qonnx.custom_op.general"),
        ms("NoSuchOp", "x", "c", "third"), node("Relu", "x", "y"),
    ]  # fmt: skip
    with pytest.raises(UnsupportedError) as error:
        import_model(model(nodes, {"x": (2,)}, ["y"], domains={"qonnx.custom_op.general": 1}))
    for part in (
        "If ('branch')",
        "qonnx.custom_op.general.NoQuant ('brevitas')",
        "com.microsoft.NoSuchOp ('third')",
    ):
        assert part in str(error.value)
    assert "Relu" not in str(error.value)


def test_model_local_functions_are_inlined():
    body = [node("Relu", "a", "t"), node("Neg", "t", "b")]
    function = helper.make_function("local", "NegRelu", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    nodes = [node("NegRelu", "x", "m", "", "local"), node("NegRelu", "m", "y", "", "local")]
    made = model(nodes, {"x": (2,)}, ["y"], functions=[function], domains={"local": 1})
    np.testing.assert_array_equal(simulate(made, {"x": f32(-1, 2)})["y"], [0, 0])


def test_a_dimension_name_is_one_variable_everywhere():
    made = model([node("Add", "a b", "y")], {"a": ("batch", 3), "b": ("batch", 3)}, ["y"])
    params = imported(made)["main"].params
    first, second = (shape_of(param)[0] for param in params)
    assert isinstance(first, tvm.tirx.Var) and first.same_as(second)


def test_dimensions_without_a_name_are_independent():
    made = model([node("Neg", "a", "y"), node("Neg", "b", "z")], {"a": (None, 3), "b": (None, 3)}, ["y", "z"])
    first, second = (shape_of(param)[0] for param in imported(made)["main"].params)
    assert not first.same_as(second)


def test_input_shapes_fix_a_named_dimension_for_all_inputs():
    made = model([node("Add", "a b", "y")], {"a": ("batch", 3), "b": ("batch", 3)}, ["y"])
    params = imported(made, input_shapes={"b": [4, 3]})["main"].params
    assert [shape_of(param) for param in params] == [(4, 3), (4, 3)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"c": [1]}, "no input 'c'"),
        ({"a": [1, 2, 3]}, "rank 2"),
        ({"a": [1, 4]}, "contradicts the fixed dimension 3"),
        ({"a": [0, 3]}, "not positive"),
        ({"a": [1, 3], "b": [2, 3]}, "dimension 'batch' is"),
    ],
)
def test_input_shapes_that_do_not_fit(shapes, message):
    made = model([node("Add", "a b", "y")], {"a": ("batch", 3), "b": ("batch", 3)}, ["y"])
    with pytest.raises(InputError, match=message):
        import_model(made, input_shapes=shapes)


def test_an_input_of_unknown_rank_needs_a_shape():
    made = model([node("Relu", "x", "y")], {"x": None}, ["y"])
    with pytest.raises(InputError, match="rank is not known; give its shape"):
        import_model(made)
    assert shape_of(imported(made, input_shapes={"x": [2, 3]})["main"].params[0]) == (2, 3)
