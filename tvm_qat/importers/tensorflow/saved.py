"""SavedModel folders: a signature of their graph, and variables read straight from the checkpoint.

The folder is not loaded by TensorFlow, which would run its initializers (they may read and write
files). Which checkpoint entry a variable has is said by the model's own restore function:

    RestoreV2(file, names)[k] -> Identity -> AssignVariableOp(variable)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tensorflow.model import Array, Graph, Model, base, by_name

_DEFAULT = "serving_default"
_AGAIN = "copy or export it again"


def load_saved(saved: Any, folder: Path, wanted: str | None) -> Model:
    """saved: the parsed saved_model.pb of `folder`. wanted: the name of a signature."""
    file = folder.name
    meta = _serving(saved, file)
    nodes = by_name(meta.graph_def.node, file)
    functions = {entry.signature.name: entry for entry in meta.graph_def.library.function}
    name, signature = _signature(meta, wanted, file)
    inputs = {key: info.name for key, info in sorted(signature.inputs.items())}
    outputs = {key: info.name for key, info in sorted(signature.outputs.items())}
    if not outputs or not all([*inputs.values(), *outputs.values()]):
        raise InputError(located(f"signature {name!r} names no tensors", file=file, remedy=_AGAIN))
    checkpoint = _Checkpoint(folder, _keys(meta.saver_def, nodes, functions))
    return Model(Graph(nodes), functions, inputs, outputs, checkpoint.value, file)


def _serving(saved: Any, file: str) -> Any:
    for meta in saved.meta_graphs:
        if "serve" in meta.meta_info_def.tags:
            return meta
    if len(saved.meta_graphs) == 1:
        return saved.meta_graphs[0]
    raise UnsupportedError(located("none of its graphs has the tag 'serve'", file=file))


def _signature(meta: Any, wanted: str | None, file: str) -> tuple[str, Any]:
    """The wanted one; else `serving_default`, or the only one."""
    found = {k: v for k, v in meta.signature_def.items() if k != "__saved_model_init_op"}
    name = wanted or _DEFAULT
    if name in found:
        return name, found[name]
    if wanted is None and len(found) == 1:
        return next(iter(found.items()))
    names = ", ".join(sorted(found)) or "none"
    raise InputError(located(f"it has no signature {name!r}", file=file, remedy=f"choose from: {names}"))


def _keys(saver: Any, nodes: Mapping[str, Any], functions: Mapping[str, Any]) -> dict[str, str]:
    """Checkpoint entries by the name of the node that holds the variable."""
    restore = nodes.get(base(saver.restore_op_name))
    if restore is None:
        return {}
    if restore.op not in ("StatefulPartitionedCall", "PartitionedCall"):
        return _restored(nodes)  # TensorFlow 1: the graph itself assigns
    body = functions.get(restore.attr["f"].func.name)
    if body is None:
        return {}
    keys = _restored({node.name: node for node in body.node_def})
    holders = [base(name) for name in restore.input]
    arguments = [argument.name for argument in body.signature.input_arg]
    return {
        holder: keys[argument]
        for holder, argument in zip(holders, arguments, strict=False)
        if argument in keys
    }


def _restored(nodes: Mapping[str, Any]) -> dict[str, str]:
    """Variable -> entry, for everything that is assigned straight from the checkpoint."""
    keys = {}
    for node in nodes.values():
        if node.op in ("AssignVariableOp", "Assign") and len(node.input) >= 2:
            key = _entry(nodes, node.input[1])
            if key is not None:
                keys[_source(nodes, node.input[0])] = key
    return keys


def _source(nodes: Mapping[str, Any], tensor: str) -> str:
    """The node behind any Identity; a bound on the steps ends cycles."""
    name = base(tensor)
    for _ in range(len(nodes)):
        node = nodes.get(name)
        if node is None or node.op != "Identity" or not node.input:
            break
        name = base(node.input[0])
    return name


def _entry(nodes: Mapping[str, Any], tensor: str) -> str | None:
    node = nodes.get(base(tensor))
    for _ in range(len(nodes)):
        if node is None or node.op != "Identity" or not node.input:
            break
        tensor = node.input[0]
        node = nodes.get(base(tensor))
    if node is None or node.op != "RestoreV2" or len(node.input) < 2:
        return None
    names = nodes.get(base(node.input[1]))
    if names is None or names.op != "Const":
        return None
    entries: list[bytes] = list(names.attr["value"].tensor.string_val)
    last = tensor.rpartition(":")[2]
    index = int(last) if last.isdigit() else 0
    return entries[index].decode("utf-8", "replace") if index < len(entries) else None


class _Checkpoint:
    """Reads a variable when it is first asked for."""

    def __init__(self, folder: Path, keys: dict[str, str]) -> None:
        self._folder, self._keys = folder, keys
        self._reader: Any = None

    def value(self, name: str) -> Array:
        if name not in self._keys:
            raise InputError(f"nothing restores variable {name!r} from the checkpoint")
        try:
            if self._reader is None:
                self._reader = tf.train.load_checkpoint(str(self._folder / "variables" / "variables"))
            return np.asarray(self._reader.get_tensor(self._keys[name]))
        except (tf.errors.OpError, RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"variable {name!r} cannot be read from the checkpoint: {said}") from None
