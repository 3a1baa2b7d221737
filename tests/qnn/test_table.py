"""Every row of the table is complete: type rule, evaluator, builder, printed name, example."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tests.support.qnn_examples import EXAMPLES, IDS, Example
from tvm_qat.ir import bindings_of, dtype_of, op_name, relax, shape_of, source_of, tvm
from tvm_qat.qnn import arithmetic, build, params, reference
from tvm_qat.qnn.table import OPS
from tvm_qat.verification.evaluate import evaluate_module

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=IDS)


@pytest.mark.parametrize("name", OPS)
def test_every_row_is_complete(name: str):
    spec = OPS[name]
    op = tvm.ir.Op.get(name)
    assert callable(spec.infer) and op.get_attr("FInferType") is not None
    assert op.get_attr("FPurity")
    assert op.get_attr("TScriptPrinterName") == name
    assert [str(argument.name) for argument in op.arguments] == list(spec.args)
    assert spec.summary
    assert name in reference._EVALUATORS
    assert any(example.op == name for example in EXAMPLES), f"no example of {name} in qnn_examples"


def test_every_evaluator_has_a_row():
    assert set(reference._EVALUATORS) == set(OPS)


def test_every_example_calls_the_operator_it_names():
    for example in EXAMPLES:
        (binding,) = bindings_of(example.module()["main"])
        assert op_name(binding.value) == example.op
        assert len(binding.value.args) == len(OPS[example.op].args)


def test_every_builder_is_called_by_an_example(monkeypatch: pytest.MonkeyPatch):
    called = set()

    def spy(name, builder):
        def run(*args, **kwargs):
            called.add(name)
            return builder(*args, **kwargs)

        return run

    public = inspect.getmembers(
        build, lambda f: inspect.isfunction(f) and f.__module__ == build.__name__ and f.__name__[0] != "_"
    )
    assert len(public) >= 15
    for name, builder in public:
        monkeypatch.setattr(build, name, spy(name, builder))
    for example in EXAMPLES:
        example.module()
    assert called == {name for name, _ in public}


@each_example
def test_the_type_rule_gives_the_shape_and_dtype_of_the_reference(example: Example, rng):
    mod = example.module()
    (binding,) = bindings_of(mod["main"])
    (result,) = evaluate_module(mod, example.arrays(rng))
    assert result.shape == shape_of(binding.var)
    assert str(result.dtype) == dtype_of(binding.var)


@each_example
def test_json_round_trip_keeps_the_module_and_its_source_names(example: Example):
    mod = example.module()
    relax.analysis.well_formed(mod)
    loaded = tvm.ir.load_json(tvm.ir.save_json(mod))
    tvm.ir.assert_structural_equal(loaded, mod)
    (binding,) = bindings_of(loaded["main"])
    assert source_of(binding.value) == "example"


@each_example
def test_a_symbolic_batch_gives_what_a_known_one_gives(example: Example, rng):
    arrays = example.arrays(rng)
    mod = example.module(symbolic_batch=True)
    (binding,) = bindings_of(mod["main"])
    assert not isinstance(shape_of(binding.var)[0], int)
    np.testing.assert_array_equal(
        evaluate_module(mod, arrays)[0], evaluate_module(example.module(), arrays)[0]
    )
    (larger,) = evaluate_module(mod, example.arrays(rng, batch=3))
    assert larger.shape[0] == 3


@each_example
def test_the_printed_module_shows_the_operator_by_name(example: Example):
    assert f'T.Call("{example.op}", [' in example.module().script()


@each_example
def test_results_stay_in_the_range_of_the_output(example: Example, rng):
    mod = example.module()
    (binding,) = bindings_of(mod["main"])
    output = "output_scale" in OPS[example.op].args and "training" not in OPS[example.op].kind
    if not output:
        return
    grid = params.params_of(binding.value, "output")
    (result,) = evaluate_module(mod, example.arrays(rng))
    assert grid is not None and grid.range[0] <= result.min() and result.max() <= grid.range[1]


def test_every_formula_of_quantize_is_known_to_the_builder():
    for formula in arithmetic.QUANTIZE_FORMULAS:
        quantized = arithmetic.quantize(np.float32([0.5]), params.QParams(1.0, 0, "int8"), formula)
        assert quantized.dtype == np.int8
