"""What must hold before a model is translated; whatever does not is one clear line.

onnx's own checker and type inference do most of it, node by node, so that a message can name
the node. Operators of domains that onnx does not know are left to their converters.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import onnx
from onnx import ModelProto, NodeProto, checker, helper, shape_inference

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import without_translation
from tvm_qat.importers.onnx.load import Model, node_label
from tvm_qat.importers.onnx.order import sorted_nodes
from tvm_qat.importers.onnx.table import SHAPE_CHANGING, SHAPE_KEEPING, converter_of, is_standard

OLDEST_OPSET = 9
"""What the first exporters of QONNX and NEMO wrote; QuantizeLinear came with the next."""


_TERM = rb"[A-Za-z]*(?:\.{3}[A-Za-z]*)?"
_EQUATION = re.compile(rb"%b(,%b)*(->%b)?" % (_TERM, _TERM, _TERM))


def checked(model: Model) -> Model:
    """The model with its nodes sorted, or InputError / UnsupportedError."""
    _check_graph(model)
    _check_operators(model)
    _check_opset(model)
    model = replace(model, proto=_with_nodes(model.proto, sorted_nodes(model)))
    _check_nodes(model)
    return model


_FOREIGN = "tvm_qat.foreign"
"""A domain whose operators onnx passes over."""


def element_types(model: Model) -> dict[str, int]:
    """The ONNX element type of every value that type inference can name.

    Declared shapes of intermediate values and outputs are dropped first: exporters leave stale
    ones behind, and those of the inputs decide. Operators that onnx does not know, but that give
    what they take, stand there as Identity; of those that change the shape nothing is inferred.
    """
    bare = ModelProto()
    bare.CopyFrom(model.proto)
    del bare.graph.value_info[:]
    bare.opset_import.append(helper.make_opsetid(_FOREIGN, 1))
    for node in bare.graph.node:
        if node.op_type in SHAPE_KEEPING and not is_standard(node.domain, node.op_type):
            replaced = helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name)
            node.CopyFrom(replaced)
        elif node.op_type in SHAPE_CHANGING:
            node.domain = _FOREIGN
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    except (shape_inference.InferenceError, checker.ValidationError, ValueError) as error:
        node, reason = _inference_message(str(error))
        raise InputError(
            located(reason, file=model.file, node=node, remedy="onnx.checker rejects it as well")
        ) from None
    graph = inferred.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return types | {t.name: t.data_type for t in graph.initializer}


def _check_graph(model: Model) -> None:
    proto = model.proto
    if not 0 < proto.ir_version < 1 << 31 or not proto.HasField("graph") or not proto.graph.output:
        reason = "is not an ONNX model (no version, graph or output)"
        raise InputError(located(reason, file=model.file, remedy="copy or export it again"))
    if proto.graph.sparse_initializer:
        reason = f"sparse initializer {proto.graph.sparse_initializer[0].values.name!r} is not supported"
        raise UnsupportedError(located(reason, file=model.file, remedy="store it as a dense tensor"))


def _check_opset(model: Model) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= model.opset <= newest:
        reason = f"opset {model.opset} is outside {OLDEST_OPSET}..{newest}"
        raise UnsupportedError(
            located(reason, file=model.file, remedy="convert it with onnx.version_converter")
        )


def _check_operators(model: Model) -> None:
    """All operators without a translation, at once, each with its nodes."""
    missing: dict[str, list[str]] = {}
    for node in model.proto.graph.node:
        if converter_of(node.domain, node.op_type) is None:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            missing.setdefault(kind, []).append(node.name or (node.output[0] if node.output else "?"))
    if missing:
        raise without_translation(missing, model.file)


def _with_nodes(proto: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    """The model with these nodes, in this order, each with a name of its own.

    Nameless nodes are called after their first output; a name that is taken gets a number.
    """
    result = ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        name = node.name or next(filter(None, node.output), f"{node.op_type}_{index}")
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        copy.name = name if name not in taken else f"{name}#{index}"
        taken.add(copy.name)
    return result


def _check_nodes(model: Model) -> None:
    context = checker.C.CheckerContext()
    context.ir_version = model.proto.ir_version
    context.opset_imports = {"": model.opset}  # operators of other domains are not checked
    for node in model.proto.graph.node:
        if not is_standard(node.domain, node.op_type):
            continue
        repeated = [name for name, count in Counter(a.name for a in node.attribute).items() if count > 1]
        try:
            checker.check_node(node, context)
        except checker.ValidationError as error:
            repeated.append(str(error))
        wrong = repeated or [*_missing_inputs(node, model.opset), *_wrong_equations(node)]
        if wrong:
            raise InputError(
                located(_first_reason(wrong[0]), file=model.file, node=node_label(node))
            ) from None


def _missing_inputs(node: NodeProto, opset: int) -> list[str]:
    """Inputs without a name that may not be left out, which onnx's checker does not look for."""
    formal = onnx.defs.get_schema(node.op_type, opset).inputs
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    left_out = [i for i, name in enumerate(node.input) if not name]
    return [f"input {i} is missing" for i in left_out if formal[min(i, len(formal) - 1)].option != optional]


def _wrong_equations(node: NodeProto) -> list[str]:
    """Of an Einsum: onnx's type inference does not end on some characters that stand for nothing."""
    given = [a.s for a in node.attribute if node.op_type == "Einsum" and a.name == "equation"]
    wrong = [text for text in given if not _EQUATION.fullmatch(text.replace(b" ", b""))]
    return [f"equation {text!r} is none" for text in wrong]


def _first_reason(message: str) -> str:
    """The checker's message without the context it appends."""
    return message.split("==>")[0].replace("\n", " ").strip().rstrip(".")


def _inference_message(message: str) -> tuple[str | None, str]:
    """(node, reason) out of `[ShapeInferenceError] (op_type:Gemm, node name: x): reason`."""
    found = re.search(r"\(op_type:\s*([^,)]+)(?:, node name:\s*(.*?))?\):\s*(.*)", message, re.DOTALL)
    if not found:
        return None, _first_reason(message)
    kind, name, reason = found.groups()
    return f"'{name}' ({kind})", _first_reason(reason)
