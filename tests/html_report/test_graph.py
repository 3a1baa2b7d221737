from __future__ import annotations

import pytest

from tvm_qat import import_model
from tvm_qat.demo import demo_files
from tvm_qat.html_report.graph import Graph, graph_of


@pytest.fixture(scope="module")
def graph() -> Graph:
    with demo_files() as folder:
        return graph_of(import_model(folder / "digits_cnn.onnx"), kept={"image/quantize"})


def edges(graph: Graph) -> set[tuple[str, str]]:
    return {(graph.nodes[a].name, graph.nodes[b].name) for a, b in graph.edges}


def test_nodes_that_only_quantize_are_left_out_unless_a_layer_bears_their_name(graph: Graph):
    names = [node.name for node in graph.nodes]
    assert "image/quantize" in names and "stem/conv" in names and "stem/conv/relu" in names
    assert "stem/conv/quantize" not in names and "image/dequantize" not in names
    assert "stem/conv/quantize" in graph.order


def test_edges_lead_through_what_is_left_out(graph: Graph):
    found = edges(graph)
    assert {
        ("image", "image/quantize"),
        ("image/quantize", "stem/conv"),
        ("stem/conv/relu", "stem/pool"),
    } <= found
    into_add = {a for a, b in found if b == "block2/add"}
    assert into_add == {"block2/conv2", "block1/pointwise/relu"}


def test_the_model_begins_with_inputs_and_ends_with_outputs(graph: Graph):
    kinds = [node.kind for node in graph.nodes]
    assert kinds[0] == "input" and kinds[-1] == "output" and set(kinds[1:-1]) == {"operator"}
    assert all(a < b for a, b in graph.edges)
    assert ("head/linear", graph.nodes[-1].name) in edges(graph)


def test_a_weights_quantizer_belongs_to_who_reads_it(graph: Graph):
    assert graph.weights["stem/conv/weight/dequantize"] == ("stem/conv",)
    assert graph.weights["head/linear/weight/dequantize"] == ("head/linear",)
