"""Values of an evaluation on demand: it runs as far as is asked for and keeps what will be asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tvm_qat.ir import Expr, Var
from tvm_qat.verification.evaluate import Evaluation

Capture = Callable[[Evaluation, Var, Expr, Any], Any]
"""(evaluation, variable, expression, value) -> what is kept of a binding."""


class Feed:
    """wanted : how often each variable will be asked for. capture : also told of every other binding."""

    def __init__(self, evaluation: Evaluation, wanted: Counter[Var], capture: Capture | None = None) -> None:
        self._evaluation, self._capture = evaluation, capture
        self._left = Counter(wanted)
        self._steps = iter(evaluation)
        self._kept: dict[Var, Any] = {}

    def get(self, var: Var) -> Any:
        while var not in self._kept:
            if not self._advance():
                raise KeyError(f"{var.name} was not asked for, or is no binding")
        self._left[var] -= 1
        return self._kept[var] if self._left[var] else self._kept.pop(var)

    def finish(self) -> None:
        while self._advance():
            pass

    def _advance(self) -> bool:
        step = next(self._steps, None)
        if step is None:
            return False
        var, expr, value = step
        kept = value if self._capture is None else self._capture(self._evaluation, var, expr, value)
        if self._left[var] > 0:
            self._kept[var] = kept
        return True
