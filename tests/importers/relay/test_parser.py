"""The forms in which TVM printed a program, and how the importer names what it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.importers.relay.text import imported, params_bytes, program, simulate
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.ir import bindings_of, source_of

X = np.array([1.0, -2.0, 3.0], np.float32)


@pytest.mark.parametrize(
    "body",
    [
        "%0 = add(%x, %x) /* ty=Tensor[(3), float32] */; %1 = add(%0, %x); multiply(%1, 2f)",
        "multiply(add(add(%x, %x), %x), 2f)",
        "let %a = add(%x, %x); let %b: Tensor[(3), float32] = add(%a, %x); multiply(%b, 2f /* c */)",
        "%0 = (let %a = add(%x, %x); add(%a, %x)); multiply(%0, 2f)",
        "%0 = (%x, (add(%x, %x), 2f)); %1 = %0.1; %2 = add(%1.0, %0.0); multiply(%2, %0.1.1)",
        "%0 = split(concatenate((%x, %x)), indices_or_sections=2); multiply(add(add(%0.0, %x), %0.1), 2f)",
        "multiply(add(split(tile(%x, reps=[3]), indices_or_sections=[3, 6]).1, add(%x, %x)), 2f)",
        "%0 = fn (%p0: Tensor[(3), float32], %p1: float32, Primitive=1, hash=\"a1\") ->"
        " Tensor[(3), float32] { multiply(%p0, %p1) }; %1 = %0(%x, 3f); %0(%1, 2f)",
        "let %f = fn (%y) { add(%y, %x) }; multiply(%f(%f(%x)), 2f)",
        "%0 = multiply(%x, 2e0f); /* a /* nested */ comment */ multiply(%0, 3.00000f) // and a line\n",
        "@double(@triple(%x))",
    ],
)  # fmt: skip
def test_one_value_in_every_form(body: str) -> None:
    text = f"""def @main(%x: Tensor[(3), float32]) -> Tensor[(3), float32] {{ {body} }}
def @triple(%y: Tensor[(3), float32] /* ty=Tensor[(3), float32] */) {{ multiply(%y, 3f) }}
def @double(%y: Tensor[(3), float32], Inline=1) -> Tensor[(3), float32] {{
  %0 = add(%y, %y);
  %0
}}"""
    [found] = simulate(text, (), X)
    np.testing.assert_array_equal(found, 6 * X)


def test_names_with_dots_colons_slashes_and_quotes() -> None:
    text = """def @main(%tfl.quantize: Tensor[(3), float32], %in/put:0: Tensor[(3), float32],
                        %"conv 1.w": Tensor[(3), float32], %v3-x:Tensor[(3), float32]) {
      %0 = add(%tfl.quantize, %in/put:0); %1 = add(%0, %"conv 1.w"); add(%1, %v3-x) }"""
    mod = imported(text)
    names = [str(name) for name in mod["main"].attrs["input_names"]]
    assert names == ["tfl.quantize", "in/put:0", "conv 1.w", "v3-x"]
    [found] = simulate(text, (), X, X, X, X)
    np.testing.assert_array_equal(found, 4 * X)


@pytest.mark.parametrize(
    ("literal", "dtype", "value"),
    [
        ("3", "int32", 3), ("-128", "int32", -128), ("3i64", "int64", 3), ("7i16", "int16", 7),
        ("0.5f", "float32", 0.5), ("-1e-05f", "float32", -1e-5), ("2f64", "float64", 2.0),
        ("5000000000", "int64", 5 * 10**9), ("1f16", "float16", 1.0),
    ],
)  # fmt: skip
def test_scalars(literal: str, dtype: str, value: float) -> None:
    [found] = simulate(f"def @main(%x: {dtype}) {{ add(%x, {literal}) }}", (), np.zeros((), dtype))
    assert str(found.dtype) == dtype
    assert found == np.asarray(value, dtype)


def test_bindings_carry_span_or_printed_variable() -> None:
    text = """def @main(%x: Tensor[(3), float32]) {
      %0 = nn.relu(%x) /* ty=Tensor[(3), float32] span=model/conv_1:12:0 */;
      %1 = exp(%0) /* ty=Tensor[(3), float32] span=from_string:3:5 */;
      sigmoid(tanh(%1))
    }"""
    names = [source_of(b.value) for b in bindings_of(imported(text)["main"])]
    assert names[:4] == ["model/conv_1", "%1 exp", "line 5 tanh", "line 5 sigmoid"]


def test_results_of_a_tuple_are_numbered() -> None:
    mod = imported("def @main(%x: Tensor[(3), float32]) { (%x, (exp(%x), 1f)) }")
    assert list(mod["main"].attrs["output_names"]) == ["output0", "output1", "output2"]


def test_unknown_dimensions_are_symbolic_or_given() -> None:
    text = "def @main(%x: Tensor[(?, 3), float32]) { reshape(%x, newshape=[-1, 3]) }"
    x = np.zeros((5, 3), np.float32)
    assert simulate(text, (), x)[0].shape == (5, 3)
    assert imported(text, input_shapes={"x": [4, 3]})["main"].params[0].ty.shape.values[0] == 4
    with pytest.raises(InputError, match="contradicts"):
        imported(text, input_shapes={"x": [4, 2]})
    with pytest.raises(InputError, match="no input 'y'"):
        imported(text, input_shapes={"y": [4, 2]})


def test_parameters_beside_the_text(tmp_path: Path) -> None:
    model, params = tmp_path / "model.txt", tmp_path / "model.params"
    model.write_bytes(
        program("def @main(%x: Tensor[(3), float32], %w: Tensor[(3), float32]) { add(%x, %w) }")
    )
    params.write_bytes(params_bytes({"w": X}))
    mod = import_model(model, params=params)
    assert list(mod["main"].attrs["input_names"]) == ["x"]
    params.write_bytes(params_bytes({"ww": X}))
    with pytest.raises(InputError, match=r"'ww'.*no parameter of @main; those like it: w"):
        import_model(model, params=params)
    params.write_bytes(params_bytes({"w": X[:2]}))
    with pytest.raises(InputError, match=r"%w is float32 \[2\] .* but float32 \[3\]"):
        import_model(model, params=params)


def test_parameter_files_of_tvm_itself() -> None:
    import tvm

    from tvm_qat.importers.relay.binary import arrays_of_file

    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b": X, "c": np.asarray(2.5)}
    data = bytes(tvm.runtime.save_param_dict({k: tvm.runtime.tensor(v) for k, v in arrays.items()}))
    found = arrays_of_file(data)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("def @main(%x: Tensor[(3), float32]) { add(%x %x) }", "line 2, column 46: expected '\\)'"),
        ("def @main(%x: Tensor[(3), float32]) {\n  add(%x, %y) }", "line 3: %y is not defined"),
        ("def @main(%x: Tensor[(3), float32]) { %x", "expected '}', found 'the end"),
        ("def @main(%x: Tensor[(3, float32]) { %x }", "line 2, column 26"),
        ("def @main(%x: Tensor[(3), float32]) { /* %x }", "comment does not end"),
        ('def @main(%x: Tensor[(3), float32]) { "x }', "string does not end"),
        ("def @main(%x: Tensor[(3), float32]) { $x }", "unexpected character"),
        ("def @main(%x: Tensor[(3), float32]) { %x.0 }", "no part 0: it is no tuple"),
        ("def @main(%x: Tensor[(3), float32]) { %x(%x) }", "is no function"),
        ("def @main(%x: Tensor[(3), float32]) { @f(%x) }", "no function @f"),
        ("def @main(%x: Tensor[(3), float32]) { add(%x, 0x3) }", "is not a number"),
        ("def @main(%x: Tensor[(3), float32]) { add(%x, 1.2.3f) }", "is not a number"),
        ("def @main(%x: Tensor[(3), float32]) { add(%x, 99999999999999999999) }", "64 bits"),
        ("def @f(%x: Tensor[(3), float32]) { %x }", "no function @main"),
        ("def @main(%x) { %x }", "%x of @main has no tensor type"),
        ("def @main() { 1f }", "has no input"),
        ("def @main(%x: Tensor[(3), float32]) { () }", "returns nothing"),
        ("def @main(%x: Tensor[(3), float32]) { %0 = fn () { %x }; %0 }", "not a tensor"),
        ("def @main(%x: Tensor[(3), float32]) { %x } def @main(%x: int8) { %x }", "defined twice"),
        ("def @main(%x: Tensor[(3), float32], %x: int8) { %x }", "same name"),
        ("def @main(%x: Tensor[(0), float32]) { %x }", "shape"),
        ("def @main(%x: Tensor[(3), float32]) { " + "(" * 5000 + "%x }", "nested more than"),
        ("def @main(%x: Tensor[(3), float32]) { add(%x, meta[relay.Constant][0]) }", "no section"),
        ("def @main(%x: Tensor[(3), float32]) { nn.relu(%x, axis=meta[Map][0]) }", "0 inputs"),
    ],
)  # fmt: skip
def test_faults_are_placed(text: str, where: str) -> None:
    with pytest.raises(InputError, match=where) as error:
        simulate(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "def @main(%x: Tensor[(3), float32]) { if (%x) { %x } else { %x } }",
        "def @main(%x: Tensor[(3), float32]) { match (%x) { } }",
        "type List[A] { Nil, }",
        "def @main[A](%x: Tensor[(3), float32]) { %x }",
        "def @main(%x: Tensor[(3), float32]) { @main(%x) }",
        "def @main(%x: Tensor[(3), float32]) { %f = fn (%g) { %g(%g) }; %f(%f) }",
        "def @main(%x: (Tensor[(3), float32], int8)) { %x.0 }",
    ],
)
def test_what_is_not_supported_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedError):
        simulate(text)
