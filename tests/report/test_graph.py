"""The graph of a report: Graphviz's text, and the ONNX file for Netron."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import tvm_qat
from tvm_qat.qparams import QParams
from tvm_qat.report import Report
from tvm_qat.report.graph import DOMAIN, short, to_dot, to_onnx

DEMO = Path(tvm_qat.__file__).parent / "data" / "demo"
_NAME = r'"(?:[^"\\]|\\.)*"'
_STATEMENT = re.compile(rf'\s*({_NAME})(?: -> ({_NAME}))? \[(?:[^"\]]|{_NAME})*\];')
_FRAME = re.compile(
    r'digraph model \{|  (node|edge|graph) \[.*\];|  subgraph cluster_\d+ \{| *label=".*";|  \}|\}'
)


@pytest.fixture(scope="module", params=["digits_cnn", "digits_mlp"])
def report(request: pytest.FixtureRequest) -> Report:
    return tvm_qat.inspect(DEMO / f"{request.param}.onnx", "llvm")


def edges(report: Report) -> set[tuple[str, str]]:
    return {(tensor.source, layer.name) for layer in report.layers for tensor in layer.inputs}


def statements(text: str) -> list[re.Match[str]]:
    """Nodes and edges; every other line is one of the frame's."""
    found = []
    for line in text.splitlines():
        match = _STATEMENT.fullmatch(line)
        if match:
            found.append(match)
        else:
            assert _FRAME.fullmatch(line)
    return found


def test_graphviz_text_has_every_row_and_every_edge(report: Report):
    text = to_dot(report)
    assert text.count("{") == text.count("}")
    drawn = [(match[1].strip('"'), match[2] and match[2].strip('"')) for match in statements(text)]
    assert {(begin, end) for begin, end in drawn if end} == edges(report)
    assert {layer.name for layer in report.layers} <= {begin for begin, end in drawn if not end}


def test_names_of_any_kind_are_quoted(report: Report):
    odd = 'a "b" \\ c\n{d}'
    named = replace(report, layers=(replace(report.layers[0], name=odd, inputs=()),))
    (match,) = statements(to_dot(named))
    assert match[1] == '"a \\"b\\" \\\\ c\\n{d}"'


def test_the_onnx_graph_is_valid_and_has_every_row_and_edge(report: Report):
    model = to_onnx(report)
    onnx.checker.check_model(model, full_check=True)
    assert {node.name for node in model.graph.node} == {layer.name for layer in report.layers}
    assert all(node.domain == DOMAIN for node in model.graph.node)
    read = {(name.split(":")[0], node.name) for node in model.graph.node for name in node.input}
    assert read == edges(report)


def test_the_quantization_lies_on_the_onnx_graph(report: Report):
    nodes = {node.name: node for node in to_onnx(report).graph.node}
    for layer in report.layers:
        said = {attribute.name: attribute for attribute in nodes[layer.name].attribute}
        assert said["runs_on"].s.decode() == ("integers" if layer.integer else "float")
        assert ("why_float" in said) == (not layer.integer) == ("remedy" in said)
        grids = [text.decode() for text in said["grid_out"].strings] if "grid_out" in said else []
        assert grids == [short(tensor.qparams) for tensor in layer.outputs if tensor.qparams]
    assert len({node.op_type for node in nodes.values()}) > 3


def test_a_row_that_reads_a_later_one_leaves_the_file_sorted(report: Report):
    first, second, *rest = report.layers
    back = replace(first, inputs=(*first.inputs, *second.outputs))
    onnx.checker.check_model(to_onnx(replace(report, layers=(back, second, *rest))))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (None, ""),
        (QParams(0.0235), "0.0235"),
        (QParams(0.0235, 3, "uint8"), "0.0235 z3"),
        (QParams(np.array([0.1, 0.25]), 0, "int8", 1), "0.1..0.25 @1"),
        (QParams(np.array([0.1, 0.25]), np.array([1, 2]), "int8", 0), "0.1..0.25 z.. @0"),
    ],
)
def test_the_short_form_of_a_grid(params: QParams | None, expected: str):
    assert short(params) == expected


def test_dimensions_that_are_not_known_have_the_models_names(report: Report):
    """Inside of a kernel they are called otherwise."""
    shapes = [tensor.shape for layer in report.layers for tensor in (*layer.inputs, *layer.outputs)]
    assert {size for shape in shapes for size in shape if isinstance(size, str)} <= {"batch"}
