"""The walk over the operators of one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier, without_translation
from tvm_qat.importers.options import ImportOptions
from tvm_qat.importers.tflite.model import Graph, Model, Operator, Tensor
from tvm_qat.importers.tflite.node import Node, plain
from tvm_qat.importers.tflite.table import TABLE
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, TensorType, Var, shape_of


def translate(model: Model, options: ImportOptions) -> IRModule:
    """The model's first graph as `main`; its inputs and outputs keep the names of their tensors."""
    graph = model.graphs[0]
    _check_translatable(model, graph)
    names = _unique([graph.tensors[i].name for i in graph.inputs])
    variables = _parameters(model, graph, names, options.input_shapes)
    values: dict[int, Expr] = dict(zip(graph.inputs, variables.values(), strict=True))

    def body(write: Writer) -> dict[str, Expr]:
        for operator in graph.operators:
            _translate(graph, operator, values, write)
        out_names = _unique([graph.tensors[i].name for i in graph.outputs])
        return {name: _value(graph, i, values) for name, i in zip(out_names, graph.outputs, strict=True)}

    return write_main(variables, body, model.file)


def _check_translatable(model: Model, graph: Graph) -> None:
    missing: dict[str, list[str]] = {}
    for operator in graph.operators:
        if operator.kind not in TABLE:
            missing.setdefault(operator.kind, []).append(operator.name)
    if missing:
        raise without_translation(missing, model.file)
    if not graph.outputs or -1 in graph.outputs or -1 in graph.inputs:
        raise InputError(located("its graph has no outputs, or unnamed ones", file=model.file))


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where the file repeats one or leaves it empty."""
    taken: dict[str, int] = {}
    found = []
    for place, name in enumerate(names):
        taken[name] = taken.get(name, 0) + 1
        found.append(name if name and taken[name] == 1 else f"{name or 'tensor'}_{place}")
    return found


def _parameters(
    model: Model, graph: Graph, names: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Var]:
    unknown = sorted(set(shapes) - set(names))
    if unknown:
        reason = f"there is no input {unknown[0]!r}; the inputs are {', '.join(names)}"
        raise InputError(located(reason, file=model.file))
    taken: set[str] = set()
    found: dict[str, Var] = {}
    for name, index in zip(names, graph.inputs, strict=True):
        tensor = graph.tensors[index]
        shape = tuple(shapes.get(name, tensor.shape))
        if len(shape) != len(tensor.shape) or min(shape, default=1) < 1:
            reason = f"input {name!r} cannot have the shape {list(shape)}"
            raise InputError(located(reason, file=model.file, remedy="give input_shapes"))
        found[name] = Var(identifier(name, taken), TensorType(shape, tensor.dtype))
    return found


def _translate(graph: Graph, operator: Operator, values: dict[int, Expr], write: Writer) -> None:
    with write.node(operator.name, operator.kind):
        operands = tuple(None if i < 0 else _value(graph, i, values) for i in operator.inputs)
        inputs: tuple[Tensor | None, ...] = tuple(
            None if i < 0 else graph.tensors[i] for i in operator.inputs
        )
        if -1 in operator.outputs:
            raise InputError("one of its results has no tensor")
        outputs = tuple(graph.tensors[i] for i in operator.outputs)
        node = Node(operator, operands, inputs, outputs, write)
        for index, value in zip(operator.outputs, _results(node), strict=True):
            if index in values:
                raise InputError("it writes a tensor that has a value already")
            values[index] = value


def _results(node: Node) -> list[Expr]:
    """What the converter makes of it, bound. TVM's type rules raise the errors caught here."""
    try:
        made = TABLE[node.operator.kind](node)
        parts = made if isinstance(made, list) else [made]
        bound = [node.write(part) for part in parts]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"its operands do not fit: {first_line(error)}") from None
    if len(bound) != len(node.outputs):
        raise UnsupportedError(f"{len(node.outputs)} results, but {len(bound)} can be translated")
    for value in bound:
        if shape_of(value) is None or min(shape_of(value) or (1,)) < 1:
            raise UnsupportedError("the shape of its result is empty, or known at run time only")
    return bound


def _value(graph: Graph, index: int, values: dict[int, Expr]) -> Expr:
    """A tensor as it is stored. Constants become expressions when they are first read."""
    tensor = graph.tensors[index]
    if index not in values:
        if tensor.data is None:
            raise InputError(f"it reads tensor {tensor.name!r}, to which nothing before it gives a value")
        values[index] = plain(tensor.data)
    return values[index]


def first_line(error: BaseException) -> str:
    """The message of one of TVM's errors without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
