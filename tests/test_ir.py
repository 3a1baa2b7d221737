from __future__ import annotations

import gc

import numpy as np
import pytest

from tvm_qat import ir
from tvm_qat.errors import UnsupportedError
from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Function,
    IRModule,
    TensorType,
    Tuple,
    TupleGetItem,
    Var,
    relax,
    tvm,
)

PLAIN = TensorType((2, 3), "float32")


def variable(name: str = "x") -> Var:
    return Var(name, PLAIN)


def chain(*sources: str) -> IRModule:
    """exp after exp, each with the name of a source node; `main` has an attribute of its own."""
    x = variable()
    builder = BlockBuilder()
    with builder.function("main", [x], attrs={"global_symbol": "main", "input_names": ["x"]}):
        with builder.dataflow():
            value = x
            for source in sources[:-1]:
                value = builder.emit(ir.with_source(relax.op.exp(value), source))
            value = builder.emit_output(ir.with_source(relax.op.exp(value), sources[-1]))
        builder.emit_func_output(value)
    return builder.get().with_attr("kept", "yes")


def values(mod: IRModule) -> list:
    return [binding.value for binding in ir.bindings_of(mod["main"])]


def exp_to_log(_builder: BlockBuilder, _var: Var, value: ir.Expr) -> ir.Expr | None:
    return relax.op.log(value.args[0]) if ir.op_name(value) == "relax.exp" else None


def test_a_visitor_that_keeps_all_gives_an_equal_module():
    mod = chain("a", "b")
    again = ir.rewrite(mod, lambda _func: lambda *_: None)
    tvm.ir.assert_structural_equal(again, mod)
    assert [ir.source_of(v) for v in values(again)] == ["a", "b"]


def test_what_replaces_a_call_inherits_its_source_and_the_attributes_stay():
    mod = ir.rewrite(chain("a", "b"), lambda _func: exp_to_log)
    relax.analysis.well_formed(mod)
    assert [(ir.op_name(v), ir.source_of(v)) for v in values(mod)] == [("relax.log", "a"), ("relax.log", "b")]
    assert mod.attrs["kept"] == "yes"
    assert list(mod["main"].attrs["input_names"]) == ["x"]


def test_calls_nested_in_a_replacement_inherit_the_source_too():
    def twice(_builder: BlockBuilder, _var: Var, value: ir.Expr) -> ir.Expr:
        return relax.op.add(relax.op.log(value.args[0]), relax.op.abs(value.args[0]))

    mod = ir.rewrite(chain("a"), lambda _func: twice)
    assert {ir.source_of(v) for v in values(mod)} == {"a"} and len(values(mod)) == 3


def test_a_value_replaced_by_its_operand_disappears():
    mod = ir.rewrite(chain("a", "b"), lambda _func: lambda _b, _v, value: value.args[0])
    relax.analysis.well_formed(mod)
    assert not [v for v in values(mod) if isinstance(v, Call)]


def test_a_constant_may_be_the_whole_result():
    mod = ir.rewrite(chain("a"), lambda _func: lambda *_: ir.const(np.zeros((2, 3), np.float32)))
    relax.analysis.well_formed(mod)
    assert [ir.is_const(v) for v in values(mod)] == [True]


def test_unchanged_calls_keep_their_types():
    seen = []
    ir.rewrite(chain("a"), lambda _func: lambda _b, _v, value: seen.append(ir.shape_of(value)))
    assert seen == [(2, 3)]


def test_what_nothing_uses_is_removed():
    def emits_more(builder: BlockBuilder, _var: Var, value: ir.Expr) -> None:
        builder.emit(relax.op.log(value.args[0]))

    assert len(values(ir.rewrite(chain("a"), lambda _func: emits_more))) == 1


def calling(attribute: str | None) -> IRModule:
    """`main` calls a private function `helper`."""
    builder = BlockBuilder()
    x, y = variable(), variable("y")
    attrs = {} if attribute is None else {attribute: "something"}
    with builder.function("helper", [y], attrs=attrs, private=True):
        with builder.dataflow():
            inner = builder.emit_output(relax.op.exp(y))
        builder.emit_func_output(inner)
    helper = builder.get().get_global_var("helper")
    with builder.function("main", [x], attrs={"global_symbol": "main"}):
        with builder.dataflow():
            result = builder.emit_output(Call(helper, [x]))
        builder.emit_func_output(result)
    return builder.get()


@pytest.mark.parametrize(("attribute", "inside"), [(None, "relax.log"), ("Composite", "relax.exp")])
def test_helpers_are_rewritten_and_composites_are_left_alone(attribute: str | None, inside: str):
    mod = ir.rewrite(calling(attribute), lambda _func: exp_to_log)
    relax.analysis.well_formed(mod)
    (binding,) = ir.bindings_of(mod["helper"])
    assert ir.op_name(binding.value) == inside


def test_rebuild_gives_the_builder_to_the_body():
    def body(func: Function, builder: BlockBuilder) -> Var:
        return builder.emit_output(relax.op.negative(func.params[0]))

    assert [ir.op_name(v) for v in values(ir.rebuild(chain("a", "b"), body))] == ["relax.negative"]


@pytest.mark.parametrize("error", [UnsupportedError, ZeroDivisionError, KeyboardInterrupt])
def test_whatever_is_raised_in_a_body_leaves_no_builder_half_open(error, capfd: pytest.CaptureFixture[str]):
    def fails(_func: Function, builder: BlockBuilder) -> None:
        builder.emit(relax.op.exp(variable()))
        raise error

    mod = chain("a", "b")
    with pytest.raises(error):
        ir.rebuild(mod, fails)
    gc.collect()
    assert capfd.readouterr().err == ""


def test_is_graph_tells_functions_that_another_stage_owns():
    mod = calling("Composite")
    assert ir.is_graph(mod["main"]) and not ir.is_graph(mod["helper"])
    assert not ir.is_graph(tvm.tirx.Var("n", "int64"))


def test_with_source_names_calls_tuples_and_projections():
    x = variable()
    pair = ir.with_source(Tuple([relax.op.exp(x), x]), "node")
    assert ir.source_of(pair) == ir.source_of(pair.fields[0]) == "node"
    assert ir.source_of(ir.with_source(TupleGetItem(pair, 0), "other")) == "other"


def test_with_source_keeps_the_first_name():
    named = ir.with_source(relax.op.exp(variable()), "first")
    assert ir.source_of(ir.with_source(named, "second")) == "first"
    outer = ir.with_source(relax.op.log(named), "second")
    assert (ir.source_of(outer), ir.source_of(outer.args[0])) == ("second", "first")


def test_with_source_leaves_variables_and_none_alone():
    x, call = variable(), relax.op.exp(variable())
    assert ir.with_source(x, "node").same_as(x) and ir.source_of(x) is None
    assert ir.with_source(call, None).same_as(call)


def test_substitute_replaces_variables_wherever_they_stand():
    x, y = variable(), variable("y")
    nested = ir.with_source(relax.op.add(relax.op.exp(x), x), "node")
    for expr in (nested, Tuple([x, nested]), TupleGetItem(Tuple([x, x]), 1)):
        new = ir.substitute(expr, {x: y})
        free = {v.name for v in relax.analysis.free_vars(new)}
        assert free == {"y"} and ir.source_of(new) == ir.source_of(expr)


def test_substitute_returns_untouched_calls_themselves():
    call = relax.op.exp(variable())
    assert ir.substitute(call, {variable("other"): variable("y")}).same_as(call)


def test_substitute_refuses_control_flow():
    condition, x = Var("c", TensorType((), "bool")), variable()
    branch = relax.If(condition, relax.SeqExpr([], x), relax.SeqExpr([], x))
    with pytest.raises(UnsupportedError, match=r"control flow \(If\) is not supported"):
        ir.substitute(branch, {})


def test_uses_of_finds_readers_in_nested_expressions_and_the_result():
    x = variable()
    builder = BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            a = builder.emit(relax.op.exp(x))
            b = builder.emit(Tuple([a, x]))
            c = builder.emit(TupleGetItem(b, 0))
            d = builder.emit_output(relax.op.add(c, c))
        builder.emit_func_output(d)
    uses = ir.uses_of(builder.get()["main"])
    names = {v.name: [u.name if u is not None else None for u, _ in found] for v, found in uses.items()}
    assert names == {
        "x": [a.name, b.name],
        a.name: [b.name],
        b.name: [c.name],
        c.name: [d.name] * 2,
        d.name: [None],
    }


def test_notes_are_appended_in_order_and_survive_rewriting_and_json():
    first, second = ({"kind": "k", "node": n, "text": f"about {n}"} for n in "ab")
    mod = ir.add_notes(ir.add_notes(chain("a"), [first]), [second])
    mod = ir.rewrite(mod, lambda _func: exp_to_log)
    assert ir.notes_of(tvm.ir.load_json(tvm.ir.save_json(mod))) == [first, second]
    assert ir.notes_of(chain("a")) == []
    assert ir.add_notes(mod, []).same_as(mod)


def test_same_shape_compares_symbolic_dimensions_structurally():
    n, m = tvm.tirx.Var("n", "int64"), tvm.tirx.Var("m", "int64")
    assert ir.same_shape((n, 3), (n, 3)) and ir.same_shape((n + 1,), (n + 1,)) and ir.same_shape((), ())
    for other in ((m, 3), (n + 1, 3), (4, 3), (n, 4), (n,), (n, 3, 1), None):
        assert not ir.same_shape((n, 3), other)
    assert not ir.same_shape(None, None)


def test_shapes_are_plain_integers_where_known():
    n = tvm.tirx.Var("n", "int64")
    dynamic = Var("x", TensorType((n, 3), "int8"))
    shape = ir.shape_of(dynamic)
    assert shape[1] == 3 and isinstance(shape[1], int) and not isinstance(shape[0], int)
    assert ir.static_shape(dynamic) is None and ir.static_shape(variable()) == (2, 3)
    assert ir.shape_of(Var("x", TensorType(dtype="int8", ndim=2))) is None
    assert ir.dtype_of(dynamic) == "int8" and ir.dtype_of(Var("s", relax.ShapeType(ndim=1))) == ""


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool"]
)
def test_constants_keep_values_shape_and_dtype(dtype: str):
    for shape in ((), (3,), (2, 0), (2, 3)):
        array = np.ones(shape, dtype)
        expr = ir.const(array)
        assert ir.is_const(expr) and ir.array_of(expr).dtype == array.dtype
        np.testing.assert_array_equal(ir.array_of(expr), array)
    np.testing.assert_array_equal(ir.array_of(ir.const(np.arange(6).reshape(2, 3).T, dtype)),
                                  np.arange(6).reshape(2, 3).T.astype(dtype))  # fmt: skip


def test_attributes_are_plain_values():
    data, weight = (
        Var("x", TensorType((1, 3, 8, 8), "float32")),
        Var("w", TensorType((4, 3, 3, 3), "float32")),
    )
    attrs = ir.attrs_of(relax.op.nn.conv2d(data, weight, strides=2, padding=1))
    assert attrs["strides"] == [2, 2] and attrs["padding"] == [1, 1, 1, 1]
    assert attrs["groups"] == 1 and attrs["data_layout"] == "NCHW"
    assert ir.attrs_of(relax.op.exp(variable())) == {}
    assert ir.op_name(relax.op.exp(variable())) == "relax.exp" and ir.op_name(variable()) == ""
