"""Finds out what a TensorFlow source is, and reads it without running anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tvm_qat.errors import InputError, located
from tvm_qat.importers.tensorflow.live import load_live
from tvm_qat.importers.tensorflow.model import Array, Graph, Model, by_name
from tvm_qat.importers.tensorflow.saved import load_saved

_NO_VALUE = ("NoOp", "Assert", "Const", "Placeholder", "PlaceholderWithDefault")


def load(source: Any, signature: str | None = None) -> Model:
    """source: a SavedModel's folder, a .pb file, bytes of a frozen graph, or a live object.

    signature : of a SavedModel; None for its default.
    """
    if isinstance(source, Path) and (source.is_dir() or source.name == "saved_model.pb"):
        return _saved(source if source.is_dir() else source.parent, signature)
    if signature is not None:
        raise InputError(located("only a SavedModel has signatures", remedy="leave out --signature"))
    if isinstance(source, Path):
        return frozen(_whole_graph(source.read_bytes(), source.name), source.name)
    if isinstance(source, bytes):
        return frozen(_whole_graph(source, "model"), "model")
    if isinstance(source, graph_pb2.GraphDef):
        return frozen(source, "model")
    return load_live(source)


def _saved(folder: Path, signature: str | None) -> Model:
    content = (folder / "saved_model.pb").read_bytes()
    return load_saved(_parsed(saved_model_pb2.SavedModel(), content, folder.name), folder, signature)


def _parsed(message: Any, data: bytes, file: str) -> Any:
    again = "copy or export it again"
    if not data:
        raise InputError(located("the file is empty", file=file, remedy=again))
    kind = type(message).__name__
    try:
        message.ParseFromString(data)
    except DecodeError:
        reason = f"is not a {kind} of TensorFlow, or is truncated"
        raise InputError(located(reason, file=file, remedy=again)) from None
    if not (message.node if kind == "GraphDef" else message.meta_graphs):
        raise InputError(located(f"is an empty {kind}, or none at all", file=file, remedy=again))
    return message


def _whole_graph(data: bytes, file: str) -> Any:
    """TensorFlow writes versions behind the nodes: without them a file was cut between two nodes."""
    graph = _parsed(graph_pb2.GraphDef(), data, file)
    if not graph.versions.producer:
        reason = "ends before the version of its producer: it is truncated"
        raise InputError(located(reason, file=file, remedy="copy or export it again"))
    return graph


def frozen(graph: Any, file: str) -> Model:
    """A graph that says nothing of its inputs and outputs: they are its placeholders and its ends."""
    nodes = by_name(graph.node, file)
    inputs = {node.name: f"{node.name}:0" for node in graph.node if node.op == "Placeholder"}
    read = {name.partition(":")[0] for node in graph.node for name in node.input}
    ends = [node for node in graph.node if node.name not in read and node.op not in _NO_VALUE]
    if not ends:
        reason = "no node of it is an output: each is read by another one"
        raise InputError(located(reason, file=file, remedy="cut training and summaries off"))
    functions = {function.signature.name: function for function in graph.library.function}
    outputs = {node.name: f"{node.name}:0" for node in ends}
    return Model(Graph(nodes), functions, inputs, outputs, _no_variable, file)


def _no_variable(name: str) -> Array:
    raise InputError(f"the value of variable {name!r} is not in the file; freeze the graph")
