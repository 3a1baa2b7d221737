"""`.pt` and `.pth` files, whatever they hold, and live modules that are TorchScript or lead there.

A module converted by torch.ao holds packed weights, which torch.export refuses; scripting it does
not. Everything else goes to the importer of exported programs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.options import ImportOptions, require
from tvm_qat.importers.torch import import_torch
from tvm_qat.ir import IRModule

_SCRIPT_IT = "torch.jit.save(torch.jit.script(model), ...) or torch.export.save it, or pass the module itself"


def import_pt(source: Any, options: ImportOptions) -> IRModule:
    """source : a path or bytes of torch.jit.save or torch.save, a ScriptModule, or a converted nn.Module."""
    file = source.name if isinstance(source, Path) else "model"
    require("torch", "torch", file=file)
    from tvm_qat.importers.torch.script import import_script
    from tvm_qat.importers.torch.script_file import kind_of, load_pickle, load_script

    if not isinstance(source, Path | bytes):
        return _import_module(source, file, options)
    try:
        kind = kind_of(source)
    except InputError as error:
        raise InputError(located(str(error), file=file)) from None
    if kind == "script":
        return import_script(load_script(source, file, options.trust), file, options)
    if kind == "exported":
        return import_torch(source, options)
    if kind == "pickle":
        return _import_module(load_pickle(source, file, options.trust), file, options)
    reason = "is neither TorchScript nor a file of torch.save or torch.export.save"
    raise InputError(located(reason, file=file))


def _import_module(value: Any, file: str, options: ImportOptions) -> IRModule:
    import torch

    from tvm_qat.importers.torch.script import import_script

    if isinstance(value, torch.jit.ScriptModule):
        return import_script(value, file, options)
    if isinstance(value, torch.nn.Module):
        if not any(hasattr(part, "_packed_params") for part in value.modules()):
            return import_torch(value, options)
        return import_script(_scripted(value, file, options), file, options)
    if isinstance(value, Mapping):
        reason = "holds parameters only (a state_dict), not the network that uses them"
        raise InputError(located(reason, file=file, remedy=f"load it into its model and {_SCRIPT_IT}"))
    reason = f"holds an object of type {type(value).__name__}, not a network"
    raise InputError(located(reason, file=file, remedy=_SCRIPT_IT))


def _scripted(module: Any, file: str, options: ImportOptions) -> Any:
    """By torch.jit.script; where its code cannot be scripted, traced on zeros of the given shapes."""
    import torch

    from tvm_qat.importers.torch.script_file import first_line

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.script(module)
        except (RuntimeError, TypeError, OSError, ValueError) as error:
            reason = f"is converted to quantized modules but cannot be scripted: {first_line(error)}"
        if not options.input_shapes:
            remedy = "give input_shapes, so that it can be traced"
            raise UnsupportedError(located(reason, file=file, remedy=remedy))
        zeros = {name: torch.zeros(*shape) for name, shape in options.input_shapes.items()}
        try:
            return torch.jit.trace(module, example_kwarg_inputs=zeros, check_trace=False)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedError(located(f"{reason}; nor traced: {first_line(error)}", file=file)) from None
