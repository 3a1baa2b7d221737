"""Quantization parameters out of a model, for other tools and for a float model of the same tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_qat import pipeline
from tvm_qat.compiler import as_module
from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.encodings.write import encodings_document
from tvm_qat.importers.options import ImportKeywords
from tvm_qat.ir import (
    Expr,
    Function,
    IRModule,
    TupleGetItem,
    Var,
    bindings_of,
    is_const,
    op_name,
    source_of,
    uses_of,
)
from tvm_qat.marks import VALUE_NAMES
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams

if TYPE_CHECKING:
    from typing_extensions import Unpack

Grid = tuple[QParams, str]


def export_qparams(model: Any, **options: Unpack[ImportKeywords]) -> dict[str, Any]:
    """The quantization parameters of a model, as AIMET's encodings of version 2.0.0.

    model : as for `compile`. options : the keywords of `import_model`.

    Returns a document for json.dump; `import_model(float_model, encodings=...)` lays it onto a
    float model with the same names of tensors, with the same grids bit for bit. Parameters that
    are computed at run time are not part of it.

    A tensor is called as the model calls it: the input of a quantize if nothing else reads that,
    else the result of the dequantize after it; a weight by the name of its constant.
    Raises UnsupportedError if one tensor is quantized on two grids.
    """
    mod = pipeline.run(as_module(model, **options), until="extract_qparams")
    return encodings_document(_grids(mod))


def export_float_model(model: Any) -> Any:
    """The float model under a Q/DQ ONNX model, as an onnx.ModelProto: what AIMET exports beside encodings.

    model : a path, bytes or an onnx.ModelProto. With `export_qparams(model)` as its encodings the
    result is the same model again. Raises UnsupportedError where encodings cannot say how a node
    quantizes.
    """
    from tvm_qat.importers.onnx.strip import float_model

    return float_model(Path(model) if isinstance(model, str) else model)


def _grids(mod: IRModule) -> dict[str, Grid]:
    names = _Names(mod["main"])
    found: dict[str, Grid] = {}
    for binding in bindings_of(mod["main"]):
        for name, grid in _grid(names, binding.var, binding.value):
            if found.setdefault(name, grid) != grid:
                raise UnsupportedError(
                    f"tensor {name!r} is quantized on two grids, which encodings cannot say"
                )
    return found


def _grid(names: _Names, var: Var, call: Expr) -> Iterator[tuple[str, Grid]]:
    """The grid that a binding gives to a tensor, if it gives one."""
    if op_name(call) == "qnn.quantize":
        params = params_of(call, "output")
        if params is not None:
            yield names.quantized(var, call.args[0]), (params, str(call.attrs["rounding"]))
    elif op_name(call) == "qnn.dequantize":
        data, params = call.args[0], params_of(call, "input")
        if params is not None and (is_const(data) or names.is_input(data)):
            yield names.of(data) if not is_const(data) else names.constant(data, var), (params, "half_even")


class _Names:
    """What the model calls the values of `main`."""

    def __init__(self, func: Function) -> None:
        attrs = func.attrs if func.attrs is not None else {}
        inputs = attrs["input_names"] if "input_names" in attrs else [p.name for p in func.params]
        self._inputs = {param: str(name) for param, name in zip(func.params, inputs, strict=True)}
        given = attrs.get(VALUE_NAMES, {})
        self._results = {str(node): [str(name) for name in names] for node, names in given.items()}
        self._values = {binding.var: binding.value for binding in bindings_of(func)}
        self._uses = uses_of(func)
        self._nameless: Counter[str] = Counter()

    def is_input(self, expr: Expr) -> bool:
        return isinstance(expr, Var) and expr in self._inputs

    def of(self, var: Expr) -> str:
        """A variable: the input's name, or that of the node's result."""
        if self.is_input(var):
            return self._inputs[var]
        value = self._values[var]
        source = source_of(value) or str(var.name)
        results = self._results.get(source, [source])
        index = value.index if isinstance(value, TupleGetItem) else 0
        return results[index] if index < len(results) else f"{source}:{index}"

    def quantized(self, var: Var, data: Expr) -> str:
        """The tensor that `var` quantizes: what comes back, if something else reads `data` as it is."""
        if is_const(data):
            return self.constant(data, var)
        readers = (user for user, call in self._uses.get(var, ()) if op_name(call) == "qnn.dequantize")
        result = next(readers, None) if len(self._uses[data]) > 1 else None
        return self.of(data if result is None else result)

    def constant(self, data: Expr, reader: Var) -> str:
        """A constant: by its own name; a nameless one after the node that reads it."""
        name = source_of(data)
        if name is None:
            node = source_of(self._values[reader]) or "constant"
            self._nameless[node] += 1
            name = f"{node}/constant_{self._nameless[node]}"
        return name
