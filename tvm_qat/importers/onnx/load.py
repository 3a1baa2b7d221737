"""Reads an ONNX model from a path, bytes or an object, without touching its external data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, Message

from tvm_qat.errors import InputError, located


@dataclass(frozen=True)
class Model:
    """A parsed model.

    file : its name for messages.
    folder : where its external data may lie; None if it did not come from a file.
    opset : version of the operators of the default domain.
    """

    proto: onnx.ModelProto
    file: str
    folder: Path | None

    @property
    def opset(self) -> int:
        return max((entry.version for entry in self.proto.opset_import if not entry.domain), default=1)


def node_label(node: onnx.NodeProto) -> str:
    """How messages call a node: `'conv1' (Conv)`; a nameless one by its first output."""
    return f"'{node.name or next(filter(None, node.output), '')}' ({node.op_type})"


def load(source: Any) -> Model:
    """source: an existing regular file, bytes, or an onnx.ModelProto (which is not changed)."""
    if isinstance(source, Path):
        return _model(_parse(source.read_bytes(), source.name), source.name, source.parent)
    if isinstance(source, bytes):
        return _model(_parse(source, "model"), "model", None)
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    return _model(copy, "model", None)


def _model(proto: onnx.ModelProto, file: str, folder: Path | None) -> Model:
    """The default domain has two names; from here on it has one."""
    if not _is_text(proto):
        reason = "holds names that are not UTF-8"
        raise InputError(located(reason, file=file, remedy="copy or export it again"))
    inlined = _inlined(proto, file)
    for named in (*inlined.opset_import, *inlined.graph.node):
        if named.domain == "ai.onnx":
            named.domain = ""
    return Model(inlined, file, folder)


def _parse(data: bytes, file: str) -> onnx.ModelProto:
    if not data:
        raise InputError(located("the file is empty", file=file, remedy="copy or export it again"))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        reason = "is not an ONNX model, or is truncated"
        raise InputError(located(reason, file=file, remedy="copy or export it again")) from None
    return model


def _inlined(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Model-local functions replaced by their bodies."""
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        reason = f"its functions cannot be inlined: {error}"
        raise InputError(located(reason, file=file, remedy="export without model-local functions")) from None


def _is_text(message: Message) -> bool:
    """Whether every string below `message` is UTF-8; protobuf itself hands on what is not."""
    try:
        fields = message.ListFields()
    except UnicodeDecodeError:
        return False
    for field, value in fields:
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        parts = [value] if isinstance(value, Message | str | bytes) else value
        is_text = _is_text if field.type == field.TYPE_MESSAGE else _is_string
        if not all(is_text(part) for part in parts):
            return False
    return True


def _is_string(value: object) -> bool:
    return isinstance(value, str)
