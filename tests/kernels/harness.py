"""Compiles many small graphs in one module and compares each with the NumPy reference, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    IRModule,
    TensorType,
    Tuple,
    Var,
    array_of,
    attrs_of,
    bindings_of,
    is_const,
    op_name,
    relax,
    tvm,
    with_source,
)
from tvm_qat.kernels import finish, lower
from tvm_qat.qnn.reference import evaluate

Array = np.ndarray[Any, Any]
Graph = Callable[..., Sequence[Expr] | Expr]


@dataclass(frozen=True)
class Case:
    """graph(*variables) gives one call, or a list: a call, then functions of the value before.

    symbolic : (input, axis) pairs of dimensions that are one unknown `n`. composite : the calls
    stand in a function that the fuse pass would have made.
    """

    name: str
    graph: Graph
    inputs: tuple[Array, ...]
    symbolic: tuple[tuple[int, int], ...] = ()
    composite: bool = False


def case(name: str, graph: Graph, *inputs: Array, **options: Any) -> Case:
    return Case(name, graph, inputs, **options)


LEVELS = {
    name: tvm.target.Target({"kind": "llvm", "mcpu": name})
    for name in ("x86-64-v3", "x86-64-v4", "cascadelake")
}
"""Processors by instruction set: avx2, avx512bw, avx512vnni. Any machine compiles for them."""

_FEATURES = ("avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512vnni", "avx512vbmi")


def lacks(target: Any) -> list[str]:
    """What code for `target` may use and this machine's processor does not have."""
    host = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    return [name for name in _FEATURES if _has(target, name) and not _has(host, name)]


def _has(target: Any, feature: str) -> bool:
    with target:
        return bool(tvm.target.codegen.llvm_cpu_has_features(feature))


def targets() -> dict[str, Any]:
    """The levels of this machine's architecture that it can run."""
    runs = {name: target for name, target in LEVELS.items() if not lacks(target)}
    return {"plain": tvm.target.Target("llvm"), **runs}


TARGETS = targets()


def module_of(cases: Sequence[Case]) -> IRModule:
    """One function `case<i>` per case."""
    builder = BlockBuilder()
    for i, one in enumerate(cases):
        n = tvm.tirx.Var("n", "int64")
        params = [Var(f"x{k}", _type(one, k, n)) for k in range(len(one.inputs))]
        _emit(builder, f"body{i}" if one.composite else f"case{i}", params, one)
    mod = builder.get()
    bodies = {gvar.name_hint: gvar for gvar in mod.get_global_vars()}
    outer = BlockBuilder(mod)
    for i, one in enumerate(cases):
        if one.composite:
            inner = mod[f"body{i}"].params
            params = [Var(p.name, p.ty) for p in inner]
            with outer.function(f"case{i}", params):
                with outer.dataflow():
                    result = outer.emit_output(with_source(Call(bodies[f"body{i}"], params), one.name))
                outer.emit_func_output(result)
    return outer.get()


def _type(one: Case, k: int, n: Any) -> Any:
    shape = [n if (k, axis) in one.symbolic else size for axis, size in enumerate(one.inputs[k].shape)]
    return TensorType(shape, str(one.inputs[k].dtype))


def _emit(builder: BlockBuilder, name: str, params: list[Var], one: Case) -> None:
    attrs = {"Composite": "qnn.fused"} if one.composite else None
    with builder.function(name, params, attrs=attrs, private=one.composite):
        with builder.dataflow():
            first, *steps = _steps(one.graph(*params))
            for step in steps:
                first = step(builder.emit(with_source(first, one.name)))
            result = builder.emit_output(with_source(first, one.name))
        builder.emit_func_output(result)


def _steps(graph: Any) -> list[Any]:
    return graph if isinstance(graph, list) else [graph]


def compiled(mod: IRModule, target: Any) -> Any:
    """A virtual machine for a module in the dialect."""
    return relax.VirtualMachine(compiled_module(mod, target), tvm.cpu())


def compiled_module(mod: IRModule, target: Any) -> Any:
    """The executable that such a machine runs."""
    return tvm.compile(lower(mod, target), target, relax_pipeline=finish(target))


def run(machine: Any, i: int, one: Case) -> Array:
    return machine[f"case{i}"](*[tvm.runtime.tensor(np.array(x, order="C")) for x in one.inputs]).numpy()


def expected(mod: IRModule, i: int, one: Case) -> Array:
    """The reference's result."""
    func = mod[f"body{i}"] if one.composite else mod[f"case{i}"]
    known: dict[Var, Any] = dict(zip(func.params, one.inputs, strict=True))
    for binding in bindings_of(func):
        known[binding.var] = _value(binding.value, known)
    return np.asarray(known[func.body.body])


def _value(expr: Expr, known: dict[Var, Any]) -> Any:
    if isinstance(expr, Var):
        return known[expr]
    if is_const(expr):
        return array_of(expr)
    if isinstance(expr, Tuple):
        return [_value(field, known) for field in expr.fields]
    if not op_name(expr).startswith("qnn."):
        return _ordinary(expr, known)
    return evaluate(expr, [_value(arg, known) for arg in expr.args])


def _ordinary(call: Expr, known: dict[Var, Any]) -> Array:
    name, x = op_name(call), _value(call.args[0], known)
    if name == "relax.clip":
        return np.clip(x, *(bound.value for bound in call.args[1:])).astype(x.dtype)
    if name == "relax.nn.relu":
        return np.maximum(x, 0)
    if name == "relax.nn.max_pool2d":
        return _max_pool(x, attrs_of(call))
    functions = {
        "relax.add": np.add, "relax.left_shift": np.left_shift,
        "relax.maximum": np.maximum, "relax.minimum": np.minimum,
    }  # fmt: skip
    with np.errstate(over="ignore"):
        return functions[name](x, _value(call.args[1], known))


def _max_pool(x: Array, attrs: dict[str, Any]) -> Array:
    """NHWC, padded with the least value."""
    top, left, bottom, right = attrs["padding"]
    least = np.iinfo(x.dtype).min
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=least)
    windows = np.lib.stride_tricks.sliding_window_view(padded, attrs["pool_size"], (1, 2))
    high, wide = attrs["strides"]
    return windows[:, ::high, ::wide].max((-1, -2))


def thirds(*lists: Callable[[], list[Case]], names: Sequence[str] = ("third",)) -> list[Any]:
    """Parameters of a test: each list whole, or in three parts from a dozen cases on; the last two are slow.

    Chance, the same in every run, says which case is in which part: lists hold products of options, of
    which every third could leave an option out.
    """
    found = []
    for name, make in zip(names, lists, strict=True):
        cases = make()
        if len(cases) < 12:
            found.append(pytest.param(cases, id=name))
            continue
        order = np.random.default_rng(0).permutation(len(cases))
        for k in range(3):
            part = [cases[i] for i in sorted(order[k::3])]
            found.append(pytest.param(part, id=f"{name}-{k}", marks=[pytest.mark.slow] if k else []))
    return found


def check_exact(cases: Sequence[Case], target: Any) -> None:
    """Every case compiled for `target` gives the reference's bits.

    Where this machine cannot run what it has compiled, the test ends as skipped, and says so.
    """
    mod = module_of(cases)
    executable = compiled_module(mod, target)
    if absent := lacks(target):
        pytest.skip(f"compiled, but not run: this machine's processor has no {', '.join(absent)}")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    failures = []
    for i, one in enumerate(cases):
        want, have = expected(mod, i, one), run(machine, i, one)
        assert have.dtype == want.dtype, one.name
        assert have.shape == want.shape, one.name
        same = np.array_equal(have.view(_bits(have)), want.view(_bits(want)))
        if not same:
            wrong = np.argwhere(have != want)
            failures.append(f"{one.name}: {len(wrong)} of {want.size} differ, first at {wrong[:1].tolist()}")
    assert not failures, "\n".join(failures)


def _bits(array: Array) -> str:
    """A dtype that compares bits; of floats too."""
    return f"u{array.dtype.itemsize}"
