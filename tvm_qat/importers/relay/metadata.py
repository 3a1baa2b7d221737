"""The JSON behind `#[metadata]`: TVM's node graph, of which only constants are read.

{"root": 1, "nodes": [{"type_key": ""},
    {"type_key": "Map", "keys": ["relay.Constant"], "data": [2]},
    {"type_key": "Array", "data": [3]},
    {"type_key": "relay.Constant", "attrs": {"data": "0", ...}}, ...],
 "b64ndarrays": ["P6G0lvBAXt0..."], ...}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from tvm_qat.errors import InputError
from tvm_qat.importers.relay.binary import Array, array_of_bytes

CONSTANT = "relay.Constant"


class Metadata:
    """The constants of a program by their index; each is decoded when it is asked for."""

    def __init__(self, text: str) -> None:
        self._blobs: list[Any] = []
        self._places: list[int] = []
        self._arrays: dict[int, Array] = {}
        if text.strip():
            self._read(text)

    def constant(self, index: int) -> Array:
        if not 0 <= index < len(self._places):
            have = f"the metadata holds {len(self._places)} constants" if self._places else _NONE
            raise InputError(f"meta[{CONSTANT}][{index}] is missing: {have}")
        if index not in self._arrays:
            self._arrays[index] = self._decoded(index)
        return self._arrays[index]

    def _decoded(self, index: int) -> Array:
        blob = self._blobs[self._places[index]]
        try:
            return array_of_bytes(base64.b64decode(blob, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise InputError(f"meta[{CONSTANT}][{index}] is not valid base64") from None
        except InputError as error:
            raise type(error)(f"meta[{CONSTANT}][{index}] {error}") from None

    def _read(self, text: str) -> None:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("the section #[metadata] is not valid JSON") from None
        if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
            raise InputError("the section #[metadata] has no list of nodes")
        nodes = document["nodes"]
        blobs = document.get("b64ndarrays", [])
        self._blobs = blobs if isinstance(blobs, list) else []
        root = _entry(nodes, document.get("root"))
        keys, values = root.get("keys"), root.get("data")
        if not isinstance(keys, list) or not isinstance(values, list) or CONSTANT not in keys:
            return
        places = keys.index(CONSTANT)
        members = _entry(nodes, values[places] if places < len(values) else None).get("data")
        if not isinstance(members, list):
            raise InputError("the section #[metadata] has no list of constants")
        self._places = [self._place(nodes, member) for member in members]

    def _place(self, nodes: list[Any], member: Any) -> int:
        """Which blob a constant's node refers to."""
        node = _entry(nodes, member)
        attrs = node.get("attrs")
        place = _index(attrs.get("data") if isinstance(attrs, Mapping) else None)
        if node.get("type_key") != CONSTANT or place is None or not 0 <= place < len(self._blobs):
            raise InputError("the section #[metadata] lists a constant without data")
        return place


_NONE = "the text has no section #[metadata] (it is there only in mod.astext(show_meta_data=True))"


def _entry(nodes: list[Any], index: Any) -> Mapping[str, Any]:
    at = _index(index)
    node = nodes[at] if at is not None and 0 <= at < len(nodes) else None
    if not isinstance(node, Mapping):
        raise InputError("the section #[metadata] refers to a node that it does not have")
    return node


def _index(value: Any) -> int | None:
    """JSON holds indices as numbers or as digits in quotes."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
