from __future__ import annotations

import numpy as np
import pytest

from tests.support.tiny import ACCUMULATOR, GRID, OUTPUT_GRID, float_module, integer_module
from tvm_qat.errors import InputError
from tvm_qat.ir import (
    BlockBuilder,
    Call,
    IRModule,
    ShapeExpr,
    TensorType,
    Tuple,
    TupleGetItem,
    Var,
    const,
    op_name,
    relax,
    tvm,
)
from tvm_qat.qnn import arithmetic, linear
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams
from tvm_qat.verification.evaluate import evaluate_module


def image(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(batch).normal(size=(batch, 2, 4, 4)).astype(np.float32)


def module(types: dict[str, tuple[tuple, str]], body, **attrs) -> IRModule:
    """`main` whose dataflow block is what `body(builder, *variables)` emits and returns."""
    builder = BlockBuilder()
    variables = [Var(name, TensorType(*ty)) for name, ty in types.items()]
    names = {"global_symbol": "main", "input_names": list(types), **attrs}
    with builder.function("main", variables, attrs=names):
        with builder.dataflow():
            result = builder.emit_output(body(builder, *variables))
        builder.emit_func_output(result)
    return builder.get()


def test_quantized_operators_are_evaluated_one_after_the_other():
    (got,) = evaluate_module(integer_module(), [image()])
    weight = np.random.default_rng(0).integers(-128, 128, (3, 2, 3, 3)).astype(np.int8)
    sums = linear.conv(
        arithmetic.quantize(image(), GRID), weight, np.array(3), np.array(0), strides=[1, 1], padding=[1] * 4,
        dilation=[1, 1], data_layout="NCHW", kernel_layout="OIHW",
    )  # fmt: skip
    expected = arithmetic.dequantize(arithmetic.requantize(sums, ACCUMULATOR, OUTPUT_GRID), OUTPUT_GRID)
    np.testing.assert_array_equal(got, expected)


def test_float_operators_are_run_by_tvm():
    mod = module(
        {"x": ((2, 3), "float32")}, lambda _b, x: relax.op.add(relax.op.exp(x), const(np.float32(1)))
    )
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(evaluate_module(mod, [x])[0], np.exp(x) + 1, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_symbolic_dimensions_take_the_size_of_the_input(batch: int):
    (got,) = evaluate_module(float_module(), [image(batch)])
    assert got.shape == (batch, 3, 4, 4)
    (alone,) = evaluate_module(float_module(), [image(batch)[:1]])
    np.testing.assert_array_equal(got[:1], alone)


def test_shapes_computed_from_symbolic_dimensions_are_known():
    n = tvm.tirx.Var("n", "int64")
    mod = module({"x": ((n, 3), "float32")}, lambda _b, x: relax.op.reshape(x, ShapeExpr([n * 3])))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(evaluate_module(mod, [x])[0], x.reshape(12))


def test_inputs_go_by_name_in_any_order():
    mod = module({"a": ((3,), "float32"), "b": ((3,), "float32")}, lambda _b, a, b: relax.op.subtract(a, b))
    a, b = np.float32([5, 6, 7]), np.float32([1, 2, 3])
    for inputs in ([a, b], {"b": b, "a": a}, {"a": a, "b": b, "unused": a}):
        assert evaluate_module(mod, inputs)[0].tolist() == [4, 4, 4]


def test_missing_inputs_are_named():
    mod = module({"a": ((3,), "float32"), "b": ((3,), "float32")}, lambda _b, a, b: relax.op.add(a, b))
    with pytest.raises(InputError, match="no data for input a, b"):
        evaluate_module(mod, {"c": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="1 inputs for a model with 2"):
        evaluate_module(mod, [np.zeros(3, np.float32)])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3), np.float32), r"input x has shape \(2, 3\), not \(n, 4\)"),
        (np.zeros(4, np.float32), r"input x has shape \(4,\)"),
        (np.zeros((2, 4)), "input x is float64, not float32"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(array: np.ndarray, reason: str):
    n = tvm.tirx.Var("n", "int64")
    mod = module({"x": ((n, 4), "float32")}, lambda _b, x: relax.op.exp(x))
    with pytest.raises(InputError, match=reason):
        evaluate_module(mod, [array])


def test_inputs_that_share_a_dimension_must_agree_on_it():
    n = tvm.tirx.Var("n", "int64")
    mod = module({"x": ((n,), "int32"), "y": ((n,), "int32")}, lambda _b, x, y: relax.op.add(x, y))
    one, two = np.zeros(3, np.int32), np.zeros(4, np.int32)
    with pytest.raises(InputError, match="input y has shape"):
        evaluate_module(mod, [one, two])


def test_a_tuple_result_is_a_list_of_outputs():
    mod = module({"x": ((3,), "int8")}, lambda _b, x: Tuple([x, qnn.dequantize(x, QParams(0.1))]))
    same, real = evaluate_module(mod, [np.int8([1, 2, 3])])
    assert same.dtype == np.int8 and real.dtype == np.float32


def test_operators_with_several_results_are_projected():
    def body(builder: BlockBuilder, x: Var) -> Tuple:
        parts = builder.emit(relax.op.split(x, 2, axis=0))
        last = builder.emit(TupleGetItem(parts, 1))
        return builder.emit(qnn.concatenate([last, TupleGetItem(parts, 0)], [GRID, GRID], GRID, 0))

    mod = module({"x": ((4,), "uint8")}, body)
    assert evaluate_module(mod, [np.arange(4, dtype=np.uint8)])[0].tolist() == [2, 3, 0, 1]


def composite_module() -> IRModule:
    """Two calls, of different batch sizes, of one composite with a symbolic dimension of its own."""
    n, m = (tvm.tirx.Var(name, "int64") for name in "nm")
    builder = BlockBuilder()
    inner = Var("data", TensorType((m, 2), "uint8"))
    with builder.function("fused", [inner], attrs={"Composite": "qnn.fused"}, private=True):
        with builder.dataflow():
            real = builder.emit(qnn.dequantize(inner, GRID))
            flat = builder.emit(relax.op.reshape(real, ShapeExpr([m * 2])))
            result = builder.emit_output(qnn.quantize(flat, OUTPUT_GRID))
        builder.emit_func_output(result)
    fused = builder.get().get_global_var("fused")
    x = Var("x", TensorType((n, 2), "uint8"))
    with builder.function("main", [x], attrs={"global_symbol": "main"}):
        with builder.dataflow():
            once = builder.emit(Call(fused, [x]))
            twice = builder.emit(Call(fused, [builder.emit(relax.op.concat([x, x], 0))]))
            pair = builder.emit_output(Tuple([once, twice]))
        builder.emit_func_output(pair)
    return builder.get()


def test_composite_functions_bind_their_own_dimensions_at_each_call():
    x = np.arange(6, dtype=np.uint8).reshape(3, 2)
    once, twice = evaluate_module(composite_module(), [x])
    expected = arithmetic.quantize(arithmetic.dequantize(x.reshape(6), GRID), OUTPUT_GRID)
    np.testing.assert_array_equal(once, expected)
    np.testing.assert_array_equal(twice, np.concatenate([expected, expected]))


def test_the_observer_sees_every_binding_of_main_in_order():
    seen = []
    evaluate_module(
        integer_module(), [image()], lambda var, expr, value: seen.append((op_name(expr), value.dtype))
    )
    assert seen == [
        ("qnn.quantize", np.uint8),
        ("qnn.conv2d", np.int32),
        ("qnn.requantize", np.uint8),
        ("qnn.dequantize", np.float32),
    ]


def test_the_same_operator_on_other_shapes_is_compiled_anew():
    for size in (3, 5):
        mod = module({"x": ((size,), "float32")}, lambda _b, x: relax.op.nn.relu(x))
        assert evaluate_module(mod, [np.full(size, -1, np.float32)])[0].tolist() == [0] * size
