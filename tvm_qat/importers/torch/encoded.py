"""What encodings need to know of an exported program: its names, channel axes, what has none.

A parameter or buffer is called as in the state_dict (`conv1.weight`), an input as the program calls
it, a result after the module that computes it (`conv1`, `layer1.0`), which is that of the last call
inside of it, or after the call itself (`conv2d`, `add_1`) where no module or parameter has that name.
What one module alone reads is also its input: `conv1:input:0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.export.graph_signature import InputKind
from torch.fx import Node as Call

from tvm_qat.importers.encodings import Overlay
from tvm_qat.importers.torch.liveness import live_calls
from tvm_qat.importers.torch.node import is_tensor
from tvm_qat.ir import Expr, IRModule, add_notes, dtype_of
from tvm_qat.marks import VALUE_NAMES


@dataclass(frozen=True)
class Encoded:
    """The encodings of one program.

    names : of every input, stored tensor and call, of inner modules first. axes : of the output
    channels of weights. notes : what is float for want of an encoding.
    """

    overlay: Overlay
    names: Mapping[Call, list[str]]
    axes: Mapping[Call, int]
    notes: list[dict[str, str]] = field(default_factory=list)

    def names_tensor(self, call: Call) -> bool:
        return any(name in self.overlay.entries for name in self.names.get(call, ()))

    def lay(self, emit: Callable[[Expr], Expr], call: Call, value: Expr) -> Expr:
        """`value`, the tensor of `call`, under each of its names that has an encoding."""
        for name in self.names.get(call, ()):
            value = self.overlay.lay(emit, name, value, self.axes.get(call, 0))
        return value

    def note(self, call: Call, value: Any) -> None:
        """Remembers why the float result and operands of a call have no encoding."""
        if not self.overlay or not is_tensor(value) or not dtype_of(value).startswith("float"):
            return
        operands = [node for node in call.all_input_nodes if node.op in ("placeholder", "call_function")]
        for code, nodes in (("not-quantized", operands), ("result-not-quantized", [call])):
            text = self.overlay.missing([self._shown(node) for node in nodes if self.names.get(node)])
            if text:
                self.notes.append({"kind": "unencoded", "node": call.name, "code": code, "text": text})

    def _shown(self, call: Call) -> str:
        names = self.names[call]
        return next((name for name in names if name in self.overlay.entries), names[0])

    def finished(self, mod: IRModule) -> IRModule:
        """With the tensors' names, under which `export_qparams` hands the parameters out again."""
        if not self.overlay:
            return mod
        taken = {source: [name] for source, name in self.overlay.taken.items()}
        mod["main"] = mod["main"].with_attrs({VALUE_NAMES: taken})
        return add_notes(mod, self.notes)


def encoded(program: Any, overlay: Overlay) -> Encoded:
    """Raises InputError if an encoding names what the program does not have."""
    names = _names(program) if overlay else {}
    overlay.check_names({name for known in names.values() for name in known} if overlay else ())
    return Encoded(overlay, names, _axes(program) if overlay else {})


def _names(program: Any) -> dict[Call, list[str]]:
    found: dict[Call, list[str]] = {}
    calls = {call.name: call for call in program.graph.nodes if call.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        stored = spec.kind != InputKind.USER_INPUT
        found[calls[spec.arg.name]] = [str(spec.target if stored else spec.arg.name)]
    live = live_calls(program.graph)
    computed = [call for call in program.graph.nodes if call.op == "call_function" and call in live]
    last = {path: call for call in computed for path in _paths(call)}
    taken = {name for names in found.values() for name in names} | set(last)
    for call in computed:
        paths = [path for path, end in last.items() if end is call]
        found[call] = sorted(paths, key=len, reverse=True) + [call.name] * (call.name not in taken)
    _add_inputs(found, list(last), computed)
    return found


def _paths(call: Call) -> list[str]:
    """The modules that a call lies in."""
    return [path for path, _kind in (call.meta.get("nn_module_stack") or {}).values() if path]


def _add_inputs(found: dict[Call, list[str]], modules: list[str], computed: list[Call]) -> None:
    """Names what a module alone reads from outside, in the order in which it does, after the module."""
    stored = {call for call, names in found.items() if call.op == "placeholder" and names[0] != call.name}
    for path in modules:
        inside = [call for call in computed if path in _paths(call)]
        read = dict.fromkeys(node for call in inside for node in call.all_input_nodes)
        given = [node for node in read if node not in stored and node not in inside]
        for index, call in enumerate(given):
            if call in found and all(path in _paths(user) for user in call.users):
                found[call].append(f"{path}:input:{index}")


def _axes(program: Any) -> dict[Call, int]:
    """1 of a transposed convolution's weight, the columns of a matrix product's; elsewhere 0."""
    found: dict[Call, int] = {}
    for call in program.graph.nodes:
        target = str(call.target)
        weights = [node for node in call.all_input_nodes if node.op == "placeholder"]
        if call.op != "call_function" or not weights:
            continue
        if "conv_transpose" in target:
            found[weights[0]] = 1
        elif target.startswith(("aten.matmul", "aten.mm", "aten.bmm", "aten.addmm")):
            found[weights[-1]] = -1
    return found
