"""Other engines that run the source model, for `--against`: what they compute for the same inputs.

onnxruntime runs the literal graph (its optimizations off), quantized tensors read as outputs of it.
LiteRT runs its reference kernels; PyTorch the model itself. Of these two the outputs are compared.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, MissingDependencyError, located
from tvm_qat.ir import IRModule
from tvm_qat.marks import VALUE_NAMES

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Results:
    """outputs : in the model's order. layers : results of quantizers, by the name of their node."""

    outputs: list[Array]
    layers: dict[str, Array] = field(default_factory=dict)


class Engine(Protocol):
    """One other runtime with the model loaded."""

    def run(self, inputs: Mapping[str, Array]) -> Results: ...


def check_engine(name: str) -> None:
    """Raises InputError for an unknown engine, MissingDependencyError for one that is not installed."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r} is not known; choose from {', '.join(ENGINES)}")
    package, extra = _PACKAGES[name]
    if find_spec(package) is None:
        reason = f"comparing with {name} needs the Python package {package}"
        raise MissingDependencyError(located(reason, remedy=f"pip install 'tvm-qat[{extra}]'"))


def engine_of(name: str, model: Any, source: IRModule, quantizers: Sequence[str]) -> Engine:
    """The engine called `name`, with `model` loaded.

    model : as given to `verify`. source : as imported. quantizers : nodes whose results are asked for.
    Raises InputError where the engine cannot run such a model.
    """
    return ENGINES[name](model, source, quantizers)


class _OnnxRuntime:
    def __init__(self, model: Any, source: IRModule, quantizers: Sequence[str]) -> None:
        if not (_is_file(model, ".onnx") or type(model).__name__ == "ModelProto"):
            raise _cannot_run("onnxruntime", "ONNX models")
        import onnx
        import onnxruntime

        proto = onnx.load(model) if isinstance(model, str | os.PathLike) else model
        self._outputs = [output.name for output in proto.graph.output]
        self._layers = {node: value for node, value in _values(source).items() if node in set(quantizers)}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                _with_outputs(proto, self._layers.values()), options, providers=["CPUExecutionProvider"]
            )
        except RuntimeError as error:
            raise InputError(located(f"onnxruntime cannot load the model: {error}")) from None

    def run(self, inputs: Mapping[str, Array]) -> Results:
        names = [*self._outputs, *self._layers.values()]
        feed = {node.name: inputs[node.name] for node in self._session.get_inputs()}
        found = [np.asarray(part) for part in self._session.run(names, feed)]
        count = len(self._outputs)
        return Results(found[:count], dict(zip(self._layers, found[count:], strict=True)))


def _values(source: IRModule) -> dict[str, str]:
    """The first result of each node by the node's name, as the model calls it."""
    attrs = source["main"].attrs
    if VALUE_NAMES not in attrs:
        return {}
    return {str(node): str(names[0]) for node, names in attrs[VALUE_NAMES].items() if len(names)}


def _with_outputs(proto: Any, names: Any) -> bytes:
    """The model with further tensors as outputs; those that its nodes do not make are left out."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    present = {output.name for output in made.graph.output}
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return bytes(made.SerializeToString())


class _LiteRT:
    def __init__(self, model: Any, _source: IRModule, _quantizers: Sequence[str]) -> None:
        if not _is_file(model, ".tflite"):
            raise _cannot_run("litert", "TFLite files")
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN_REF
        self._interpreter = Interpreter(model_path=str(model), experimental_op_resolver_type=resolver)

    def run(self, inputs: Mapping[str, Array]) -> Results:
        details = self._interpreter.get_input_details()
        for detail, array in zip(details, inputs.values(), strict=True):
            self._interpreter.resize_tensor_input(detail["index"], array.shape)
        self._interpreter.allocate_tensors()
        for detail, array in zip(details, inputs.values(), strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return Results([np.array(self._interpreter.get_tensor(output["index"])) for output in outputs])


class _Torch:
    def __init__(self, model: Any, _source: IRModule, _quantizers: Sequence[str]) -> None:
        self._call = _callable(model)

    def run(self, inputs: Mapping[str, Array]) -> Results:
        import torch

        arrays = [torch.from_numpy(np.array(array)) for array in inputs.values()]
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                found = self._call(*arrays)
        except (RuntimeError, TypeError, ValueError) as error:
            first = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(located(f"torch cannot run the model: {first}")) from None
        parts = list(found) if isinstance(found, tuple | list) else [found]
        return Results([part.detach().numpy() for part in parts])


def _callable(model: Any) -> Any:
    """What runs a model of PyTorch, at inference. Its importer has read and checked the file before."""
    import torch

    if _is_file(model, ".pt2"):
        model = torch.export.load(str(model))
    elif _is_file(model, ".pt", ".pth"):
        model = torch.jit.load(str(model), map_location="cpu")
    if isinstance(model, tuple):
        model = model[0]
    if hasattr(model, "graph_signature"):
        model = model.module()
    if isinstance(model, torch.nn.Module):
        return _at_inference(model)
    raise _cannot_run("torch", "models of PyTorch")


def _at_inference(model: Any) -> Any:
    """A copy with observers off, as the importer takes them; scripts and exported programs stay."""
    import torch

    from tvm_qat.importers.torch.live import in_eval_mode

    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "graph"):
        return model
    return in_eval_mode(copy.deepcopy(model)).apply(torch.ao.quantization.disable_observer)


ENGINES: dict[str, Callable[[Any, IRModule, Sequence[str]], Engine]] = {
    "onnxruntime": _OnnxRuntime,
    "litert": _LiteRT,
    "torch": _Torch,
}
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "bench"),
    "litert": ("ai_edge_litert", "bench"),
    "torch": ("torch", "torch"),
}
"""The Python package of each, and the extra that installs it."""


def _is_file(model: Any, *suffixes: str) -> bool:
    return isinstance(model, str | os.PathLike) and Path(model).suffix.lower() in suffixes


def _cannot_run(engine: str, what: str) -> InputError:
    return InputError(located(f"{engine} cannot run this model", remedy=f"it runs {what}"))
