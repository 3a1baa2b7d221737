"""Writes `main`: bindings that carry the name of the source node they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tvm_qat.errors import InputError, located
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    IRModule,
    Tuple,
    Var,
    define,
    is_const,
    with_source,
)
from tvm_qat.marks import NODE_KINDS


class Writer:
    """Binds expressions, one source node after the other.

    builder : for TVM's own helpers that emit bindings themselves.
    """

    def __init__(self, builder: BlockBuilder, file: str) -> None:
        self.builder = builder
        self._file = file
        self._node = ""
        self.kinds: dict[str, str] = {}
        """The operator of each node so far."""

    @contextmanager
    def node(self, name: str, kind: str, where: str = "") -> Iterator[None]:
        """Everything emitted inside comes from this node; an InputError raised inside names it.

        kind : the operator, as the source format calls it. where : said beside it.
        """
        self._node = name
        self.kinds.setdefault(name, kind)
        try:
            yield
        except InputError as error:
            message = located(str(error), file=self._file, node=f"'{name}' ({kind}{where})")
            raise type(error)(message) from None

    def __call__(self, expr: Expr) -> Expr:
        """`expr` bound to a variable; constants and variables stay what they are."""
        if is_const(expr) or isinstance(expr, Var):
            return expr
        return self.builder.emit(with_source(expr, self._node) if self._node else expr)


def write_main(
    inputs: Mapping[str, Var], body: Callable[[Writer], Mapping[str, Expr]], file: str
) -> IRModule:
    """A module whose `main` takes `inputs` and returns what `body` wrote, by the model's own names.

    body : called once; emits into the writer it is given and returns the outputs in order, at
        least one. file : the model's name for messages.
    """
    builder = BlockBuilder()
    writer = Writer(builder, file)
    outputs: dict[str, Expr] = {}

    def written() -> Expr:
        outputs.update(body(writer))
        values = list(outputs.values())
        return builder.emit_output(values[0] if len(values) == 1 else Tuple(values))

    define(builder, "main", list(inputs.values()), written)
    mod = builder.get()
    attrs = {"input_names": list(inputs), "output_names": list(outputs), NODE_KINDS: writer.kinds}
    mod["main"] = mod["main"].with_attrs(attrs)
    return mod
