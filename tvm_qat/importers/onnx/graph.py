"""The walk over the nodes: operands looked up, constants folded, converters called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import NodeProto, helper

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.encodings import Overlay
from tvm_qat.importers.onnx import whole
from tvm_qat.importers.onnx.chains import written, written_out
from tvm_qat.importers.onnx.check import element_types
from tvm_qat.importers.onnx.encoded import channel_axes, missing_notes
from tvm_qat.importers.onnx.fold import constant_of, folded
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.inputs import MOST_ELEMENTS, model_inputs, parameters
from tvm_qat.importers.onnx.load import Model, node_label
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.sources import with_source_names
from tvm_qat.importers.onnx.stock import decoded, first_line
from tvm_qat.importers.onnx.table import converter_of
from tvm_qat.importers.onnx.tensors import MINIFLOATS, NARROW, storage_dtype, to_array, type_name
from tvm_qat.importers.onnx.whole_range import said_whole
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    IRModule,
    TensorType,
    Tuple,
    TupleGetItem,
    TupleType,
    Var,
    add_notes,
    array_of,
    bindings_of,
    const,
    define,
    is_const,
    relax,
    shape_of,
    static_shape,
)
from tvm_qat.marks import NODE_KINDS, VALUE_NAMES


@dataclass
class Scope:
    """What the walk knows so far: values by name, element types, the last variable of each node.

    used : values that something reads. kept : nodes that are not folded even if all is constant.
    overlay : encodings of a float model. axes : of the channels of weights, by name.
    whole : the float tensors hold whole numbers.
    """

    model: Model
    builder: BlockBuilder
    values: dict[str, Expr]
    types: Mapping[str, int]
    used: frozenset[str]
    kept: frozenset[str]
    overlay: Overlay
    axes: Mapping[str, int]
    marks: list[tuple[Var, str]] = field(default_factory=list)
    whole: bool = False


def translate(model: Model, input_shapes: Mapping[str, Sequence[int]], overlay: Overlay) -> IRModule:
    """The model as a module with one function `main`, its body one dataflow block."""
    params = parameters(model, input_shapes)
    types = element_types(model)
    kept, axes = written_out(model.proto.graph.node), channel_axes(model)
    scope = Scope(model, BlockBuilder(), dict(params), types, _used(model), kept, overlay, axes)
    _add_initializers(scope)

    def body() -> Expr:
        for name, value in scope.values.items():
            scope.values[name] = _encoded(scope, name, value)
        _add_whole_inputs(scope, params)
        for node in model.proto.graph.node:
            _translate_node(scope, node)
        return scope.builder.emit_output(_result(scope))

    define(scope.builder, "main", list(params.values()), body)
    return _finished(scope)


def _add_whole_inputs(scope: Scope, params: Mapping[str, Var]) -> None:
    """Inputs of graphs that hold whole numbers in float tensors are quantized as such."""
    constants = {name: array_of(value) for name, value in scope.values.items() if is_const(value)}
    scope.whole = whole.holds_whole_numbers(scope.model.proto.graph.node, constants, scope.types)
    if scope.whole:
        for name, var in params.items():
            scope.values[name] = whole.whole_input(scope.builder, var)
            scope.marks.append((scope.values[name], name))


def _used(model: Model) -> frozenset[str]:
    """The values that some node or output reads."""
    read = {name for node in model.proto.graph.node for name in node.input}
    return frozenset(read | {output.name for output in model.proto.graph.output})


def _add_initializers(scope: Scope) -> None:
    for tensor in scope.model.proto.graph.initializer:
        if tensor.name not in scope.used:
            continue
        try:
            scope.values[tensor.name] = const(to_array(tensor, scope.model.folder), source=tensor.name)
        except InputError as error:
            raise type(error)(located(str(error), file=scope.model.file)) from None


def _translate_node(scope: Scope, proto: NodeProto) -> None:
    try:
        _check_types(scope, proto)
        inputs = tuple(scope.values[i] if i else None for i in proto.input)
        results = _folded(scope, proto, inputs)
        if results is None:
            node = _node(scope, proto, inputs)
            results = _results(scope, node)
        if any(output in scope.used for output in proto.output[len(results) :]):
            raise UnsupportedError(f"only the first {len(results)} of its outputs can be translated")
    except InputError as error:
        raise type(error)(located(str(error), file=scope.model.file, node=node_label(proto))) from None
    for output, value in zip(proto.output, results, strict=False):
        if output:
            value = said_whole(scope.builder, value) if scope.whole else value
            scope.values[output] = _encoded(scope, output, value)
        if isinstance(value, Var):
            scope.marks.append((value, proto.name))


def _encoded(scope: Scope, name: str, value: Expr) -> Expr:
    return scope.overlay.lay(scope.builder.emit, name, value, scope.axes.get(name, 0))


def _check_types(scope: Scope, proto: NodeProto) -> None:
    """Types that are stored as something else are only known to Q, DQ and what moves elements."""
    for name in proto.input:
        kind = type_name(scope.types.get(name, 0))
        if kind in MINIFLOATS and proto.op_type not in _TYPE_BLIND:
            raise UnsupportedError(f"{proto.op_type} of {kind} is not supported")
    for attribute in proto.attribute:
        if proto.op_type == "Cast" and attribute.name == "to":
            target = type_name(attribute.i)
            if target in (*NARROW, *MINIFLOATS) or not storage_dtype(attribute.i):
                raise UnsupportedError(f"a cast to {target} is not supported")


_TYPE_BLIND = (
    "DequantizeLinear", "QuantizeLinear", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
)  # fmt: skip


def _folded(scope: Scope, proto: NodeProto, inputs: Sequence[Expr | None]) -> list[Expr] | None:
    """The results of a node that needs no code; None for all others."""
    if proto.domain:
        return None
    if proto.op_type == "Constant":
        return [const(constant_of(proto, scope.model.folder))]
    if proto.op_type == "Identity" and inputs[0] is not None:
        return [inputs[0]]
    if proto.op_type == "Shape" and inputs[0] is not None and not isinstance(inputs[0].ty, relax.ShapeType):
        shape = static_shape(inputs[0])
        attrs = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        cut = slice(attrs.get("start", 0), attrs.get("end"))
        return None if shape is None else [const(shape[cut], "int64")]
    if proto.name in scope.kept or not all(value is None or is_const(value) for value in inputs):
        return None
    operands = [None if value is None else array_of(value) for value in inputs]
    arrays = folded(proto, scope.model.opset, operands)
    return None if arrays is None else [const(array) for array in arrays]


def _node(scope: Scope, proto: NodeProto, inputs: tuple[Expr | None, ...]) -> Node:
    raw = {a.name: _attribute(helper.get_attribute_value(a)) for a in proto.attribute}
    types = tuple(type_name(scope.types[i]) if scope.types.get(i) else "" for i in proto.input)
    return Node(
        name=proto.name,
        op=proto.op_type,
        domain=proto.domain,
        opset=scope.model.opset,
        inputs=inputs,
        input_types=types,
        attrs=decoded(raw),
        raw_attrs=raw,
        outputs=tuple(name if name in scope.used else "" for name in proto.output),
    )


def _attribute(value: Any) -> Any:
    return value if isinstance(value, bytes | int | float) or not hasattr(value, "__len__") else tuple(value)


def _results(scope: Scope, node: Node) -> list[Expr]:
    """What the node's converter makes of it, every part bound to a variable.

    Shapes and constants stay what they are. A type rule of TVM that does not accept the operands
    raises one of the errors caught here.
    """
    converter = converter_of(node.domain, node.op)
    assert converter is not None, node.op
    try:
        made = written(node) if node.name in scope.kept else None
        made = converter(scope.builder, node) if made is None else made
        parts = [
            part for expr in (made if isinstance(made, list | tuple) else [made]) for part in _fields(expr)
        ]
        bound = [var for part in parts for var in _bound(scope.builder, part)]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"its operands do not fit: {first_line(error)}") from None
    for var in bound:
        _check_shape(var)
    return bound


def _fields(expr: Expr) -> list[Expr]:
    return list(expr.fields) if isinstance(expr, Tuple) else [expr]


def _bound(builder: BlockBuilder, expr: Expr) -> list[Expr]:
    if not isinstance(expr, relax.Expr) or isinstance(expr, relax.ShapeExpr):
        return [expr]
    var = emit(builder, expr)
    if isinstance(var.ty, TupleType):
        return [builder.emit(TupleGetItem(var, i)) for i in range(len(var.ty.fields))]
    return [var]


def _check_shape(value: Expr) -> None:
    """Shapes are known, if only by symbolic dimensions; nothing is empty or larger than any memory."""
    if isinstance(value.ty, TensorType) and shape_of(value) is None:
        raise UnsupportedError("its result has a shape that is computed from data at run time")
    sizes = [size for size in shape_of(value) or () if isinstance(size, int)]
    if isinstance(value, Var) and (min(sizes, default=1) < 1 or math.prod(sizes) > MOST_ELEMENTS):
        raise InputError(f"its result would have the shape {list(shape_of(value) or ())}")


def _result(scope: Scope) -> Expr:
    outputs = []
    for output in scope.model.proto.graph.output:
        value = scope.values[output.name]
        if isinstance(value.ty, relax.ShapeType):
            value = scope.builder.emit(relax.op.shape_to_tensor(value))
            scope.marks.append((value, output.name))
        if not isinstance(value.ty, TensorType):
            reason = f"output {output.name!r} is not a tensor"
            raise UnsupportedError(located(reason, file=scope.model.file))
        outputs.append(value)
    return outputs[0] if len(outputs) == 1 else Tuple(outputs)


def _finished(scope: Scope) -> IRModule:
    """The module with source names on its bindings and the model's own names on its function."""
    mod = scope.builder.get()
    if any(isinstance(binding, relax.MatchCast) for binding in bindings_of(mod["main"])):
        reason = "a shape is computed from data at run time, which is not supported"
        raise UnsupportedError(located(reason, file=scope.model.file, remedy="export with constant shapes"))
    mod = with_source_names(mod, scope.marks)
    graph = scope.model.proto.graph
    values = {node.name: list(node.output) for node in graph.node}
    values |= {source: [name] for source, name in scope.overlay.taken.items()}
    mod["main"] = mod["main"].with_attrs(
        {
            "input_names": [value.name for value in model_inputs(scope.model)],
            "output_names": [output.name for output in graph.output],
            VALUE_NAMES: values,
            NODE_KINDS: {node.name: node.op_type for node in graph.node},
        }
    )
    return add_notes(mod, missing_notes(scope.model, scope.overlay, scope.types))
