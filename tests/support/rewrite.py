"""How a pass is tested: what it makes of a module, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvm_qat.ir import IRModule, dtype_of, notes_of, relax, shape_of, tvm
from tvm_qat.passes.fold.values import CODES
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.verification.evaluate import evaluate_module

Pass = Callable[[IRModule], IRModule]


def check_rewrite(pass_: Pass, before: IRModule, expected: IRModule) -> IRModule:
    """`before` becomes `expected`; the result is well-formed, and the pass keeps it as it is."""
    after = pass_(before)
    check_sound(pass_, after)
    assert_same(after, expected)
    return after


def check_unchanged(pass_: Pass, module: IRModule) -> None:
    """The negative twin: the pass must not touch `module`."""
    check_rewrite(pass_, module, module)


def check_sound(pass_: Pass, after: IRModule) -> None:
    """`after`, a result of the pass, is well-formed and a fixed point."""
    relax.analysis.well_formed(after)
    assert_same(pass_(after), after)


def assert_same(found: IRModule, expected: IRModule) -> None:
    """Structural equality of all functions; remarks and names of variables do not count."""
    names = {gvar.name_hint for gvar in found.functions}
    assert names == {gvar.name_hint for gvar in expected.functions}
    tvm.ir.assert_structural_equal(_bare(found), _bare(expected), map_free_vars=True)


def _bare(mod: IRModule) -> IRModule:
    return relax.transform.CanonicalizeBindings()(IRModule(dict(mod.functions_items())))


def reasons(mod: IRModule, kind: str = "float") -> list[tuple[str, str]]:
    """(node, text) of the remarks of one kind; every reason for float has a known code."""
    assert all(note["code"] in CODES for note in notes_of(mod) if note["kind"] == "float")
    return [(note["node"], note["text"]) for note in notes_of(mod) if note["kind"] == kind]


def random_inputs(mod: IRModule, seed: int = 0, batch: int = 2) -> list[np.ndarray[Any, Any]]:
    """Normal floats and uniform integers for the parameters of main; symbolic sizes are `batch`."""
    rng = np.random.default_rng(seed)
    arrays = []
    for param in mod["main"].params:
        shape = [d if isinstance(d, int) else batch for d in shape_of(param) or ()]
        dtype = dtype_of(param)
        if dtype.startswith("float"):
            arrays.append((rng.normal(size=shape) * 2).astype(dtype))
        elif dtype == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(bool))
        else:
            high = {"int8": 128, "uint8": 256}.get(dtype, 4)
            arrays.append(rng.integers(-128 if dtype == "int8" else 0, high, shape).astype(dtype))
    return arrays


def check_same_numbers(
    before: IRModule, after: IRModule, inputs: Sequence[Any] | None = None, *, max_steps: int = 0,
    step: float = 1.0, share: float = 0.05,
) -> None:  # fmt: skip
    """Both modules give the same outputs, up to `max_steps` of size `step` on a `share` of them."""
    arrays = random_inputs(before) if inputs is None else list(inputs)
    for old, new in zip(evaluate_module(before, arrays), evaluate_module(after, arrays), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        if not max_steps:
            np.testing.assert_array_equal(new, old)
            continue
        steps = np.abs(new.astype(np.float64) - old.astype(np.float64)) / step
        assert steps.max(initial=0) <= max_steps + 1e-3
        assert (steps > 0.5).mean() <= share


def folded(before: IRModule, *, max_steps: int = 0, step: float = 1.0, share: float = 0.05) -> IRModule:
    """fold_into_qnn, after checking that it is sound and keeps the numbers."""
    after = fold_into_qnn(before)
    check_sound(fold_into_qnn, after)
    check_same_numbers(before, after, max_steps=max_steps, step=step, share=share)
    return after
