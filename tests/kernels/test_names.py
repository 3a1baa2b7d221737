"""Names inside of expressions come to stand before them."""

from __future__ import annotations

from tvm_qat.ir import tvm
from tvm_qat.kernels.names import names_first

T = tvm.tirx
X = T.Var("x", "int64")


def doubled(value: object, name: str) -> object:
    """let name = value in name + name"""
    var = T.Var(name, "int64")
    return T.Let(var, value, var + var)


def lets(expr: object) -> list[str]:
    """The names that stand before an expression, in order; below them there is none."""
    found = []
    while isinstance(expr, T.Let):
        found.append(expr.var.name)
        assert "where" not in expr.value.script()
        expr = expr.body
    assert "where" not in expr.script()
    return found


def test_names_inside_of_names_and_of_operands_come_first_innermost_first() -> None:
    inner = doubled(X, "inner")
    nested = doubled(inner * T.IntImm("int64", 3), "outer") - doubled(X, "other")
    assert lets(names_first(nested)) == ["inner", "outer", "other"]


def test_an_expression_without_names_is_kept() -> None:
    plain = X + X
    assert names_first(plain).same_as(plain)


def test_what_is_read_under_a_condition_only_stays_there() -> None:
    guarded = T.if_then_else(T.IntImm("int64", 0) < X, doubled(X, "inside"), X)
    assert names_first(guarded).same_as(guarded)


def test_a_single_name_stays_where_it_is() -> None:
    one = doubled(X, "one") + X
    assert names_first(one).same_as(one)
