"""The rows of a report as a graph: Graphviz's text, and an ONNX file that Netron shows.

Neither can be run: a node is a row, its inputs are the rows that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tvm_qat.qparams import QParams
from tvm_qat.report.layers import Layer, Report
from tvm_qat.report.tensors import Tensor
from tvm_qat.report.totals import GRID_CHANGES
from tvm_qat.version import __version__

DOMAIN = "tvm_qat"

_COLOURS = {"integer": "#d5e8d4", "float": "#f8cecc", "grid": "#dae8fc"}


def short(params: QParams | None) -> str:
    """`0.0235`, `0.0235 z3` with a zero point, `0.0021..0.0148 @0` per channel on axis 0; "" for None."""
    if params is None:
        return ""
    low, high = float(params.scale.min()), float(params.scale.max())
    zeros = {int(zero) for zero in params.zero_point.reshape(-1)}
    zero = "" if zeros == {0} else f" z{zeros.pop()}" if len(zeros) == 1 else " z.."
    if params.per_channel:
        return f"{low:.3g}..{high:.3g}{zero} @{params.axis}"
    return f"{low:.3g}{zero}"


def to_dot(report: Report) -> str:
    """Integers are green, float is red, changes of grid are blue; a frame holds what one kernel does."""
    lines = ["digraph model {", "  node [shape=box, style=filled, fontname=sans, fontsize=10];"]
    lines += ["  edge [fontname=sans, fontsize=8];", "  graph [fontname=sans, fontsize=9];"]
    for number, (kernel, members) in enumerate(_by_kernel(report).items()):
        frame = len(members) > 1
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(kernel)};"] if frame else []
        lines += [f"    {_quoted(layer.name)} [{_label(layer)}];" for layer in members]
        lines += ["  }"] if frame else []
    rows = {layer.name for layer in report.layers}
    inputs = {t.source for layer in report.layers for t in layer.inputs if t.source not in rows}
    lines += [f"  {_quoted(name)} [shape=ellipse, fillcolor=white];" for name in sorted(inputs)]
    for layer in report.layers:
        for tensor in layer.inputs:
            text = _quoted(" ".join(filter(None, [describe(tensor), short(tensor.qparams)])))
            lines.append(f"  {_quoted(tensor.source)} -> {_quoted(layer.name)} [label={text}];")
    return "\n".join([*lines, "}", ""])


def _by_kernel(report: Report) -> dict[str, list[Layer]]:
    """Rows by the node that stands for their kernel."""
    found: dict[str, list[Layer]] = {}
    for layer in report.layers:
        found.setdefault(layer.fused_into or layer.name, []).append(layer)
    return found


def _label(layer: Layer) -> str:
    lines = [layer.name, layer.kind or layer.op, f"{layer.kernel} {layer.isa}".strip(), layer.code]
    colour = _COLOURS["grid" if layer.op in GRID_CHANGES else "integer" if layer.integer else "float"]
    return f'label={_quoted(chr(10).join(filter(None, lines)))}, fillcolor="{colour}"'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def describe(tensor: Tensor) -> str:
    """`uint8[1, 64, 56, 56]`"""
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def to_onnx(report: Report) -> onnx.ModelProto:
    """Nodes of the domain `tvm_qat`, by the model's names and operators, and their rows as attributes.

    Values have their dtype and shape; weights are described, not stored.
    """
    made: dict[str, list[str]] = {layer.name: _values(layer) for layer in report.layers}
    known: set[str] = set()
    inputs: dict[str, Tensor] = {}
    nodes = []
    for layer in _sorted(report.layers):
        names = []
        for tensor in layer.inputs:
            if tensor.source in made:
                # two rows may read each other, where calls of one stand before and behind the other
                names += [_value(report, made, tensor)] if tensor.source in known else []
            else:
                inputs[tensor.source] = tensor
                names.append(tensor.source)
        kind = (layer.kind or layer.op).split(".")[-1]
        nodes.append(
            helper.make_node(kind, names, made[layer.name], layer.name, domain=DOMAIN, **_attributes(layer))
        )
        known.add(layer.name)
    read = {name for node in nodes for name in node.input}
    outputs = [_info(name, t) for name, t in _all_values(report, made) if name not in read]
    graph = helper.make_graph(nodes, "model", [_info(n, t) for n, t in inputs.items()], outputs)
    graph.value_info.extend(_info(name, t) for name, t in _all_values(report, made) if name in read)
    opsets = [helper.make_opsetid(DOMAIN, 1), helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="tvm_qat", ir_version=10)
    model.producer_version = __version__
    helper.set_model_props(model, {name: str(value) for name, value in report.totals.items()})
    return model


def _sorted(layers: Sequence[Layer]) -> list[Layer]:
    """Rows behind those that they read, as far as that can be."""
    waiting, done = list(layers), list[Layer]()
    undone = {layer.name for layer in layers}
    while waiting:
        ready = (row for row in waiting if not any(t.source in undone - {row.name} for t in row.inputs))
        row = next(ready, waiting[0])
        waiting.remove(row)
        undone.discard(row.name)
        done.append(row)
    return done


def _values(layer: Layer) -> list[str]:
    return [f"{layer.name}:{i}" if i else layer.name for i in range(max(1, len(layer.outputs)))]


def _value(report: Report, made: Mapping[str, list[str]], tensor: Tensor) -> str:
    """Which of a row's results `tensor` is: the first of its dtype and shape."""
    row = next(layer for layer in report.layers if layer.name == tensor.source)
    alike = (i for i, out in enumerate(row.outputs) if (out.dtype, out.shape) == (tensor.dtype, tensor.shape))
    return made[tensor.source][next(alike, 0)]


def _all_values(report: Report, made: Mapping[str, list[str]]) -> Iterator[tuple[str, Tensor]]:
    for layer in report.layers:
        results = layer.outputs or (Tensor(layer.name, layer.dtype, layer.shape),)
        yield from zip(made[layer.name], results, strict=True)


def _info(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    info = helper.make_tensor_value_info(name, kind, list(tensor.shape))
    info.doc_string = short(tensor.qparams)
    return info


def _attributes(layer: Layer) -> dict[str, Any]:
    known = {
        "runs_on": "integers" if layer.integer else "float",
        "operator": layer.op,
        "kernel": layer.kernel,
        "instruction_set": layer.isa,
        "fused_into": layer.fused_into,
        "grid_in": [short(tensor.qparams) for tensor in layer.inputs if tensor.qparams],
        "grid_out": [short(tensor.qparams) for tensor in layer.outputs if tensor.qparams],
        "weights": [f"{describe(tensor)} {short(tensor.qparams)}".strip() for tensor in layer.weights],
        "multiply_accumulates": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        "why_float": layer.reason,
        "remedy": layer.remedy,
    }
    return {name: value for name, value in known.items() if value}
