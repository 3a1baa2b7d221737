"""A module as it stands after prepare_qat becomes an exported program.

torch.export refuses FakeQuantize, whose Python code asks its buffers whether to observe. The module
is copied, and in the copy each FakeQuantize becomes the one operator that it applies at inference:
its observer is off, its scale and zero point are what training left, and where fake quantization is
switched off it passes its input on. The numbers are those of the original in eval mode with
observers disabled; the original is not touched.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.torch.quant import observed_grid

_FOREIGN_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What copying, tracing and exporting foreign code raises; torch's own errors derive from these."""


class _FakeQuantized(nn.Module):  # type: ignore[misc]
    """One call of a fake quantization operator with fixed parameters."""

    def __init__(self, source: nn.Module, learnable: bool) -> None:
        super().__init__()
        self.register_buffer("scale", source.scale.detach().clone())
        self.register_buffer("zero_point", source.zero_point.detach().clone())
        observer = source.activation_post_process
        self.low, self.high = int(observer.quant_min), int(observer.quant_max)
        self.axis = int(source.ch_axis) if source.qscheme in _PER_CHANNEL else None
        self.learnable = learnable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = (self.scale, self.zero_point)
        if self.axis is None:
            if self.learnable:
                return torch._fake_quantize_learnable_per_tensor_affine(x, *grid, self.low, self.high)
            return torch.fake_quantize_per_tensor_affine(x, *grid, self.low, self.high)
        if self.learnable:
            return torch._fake_quantize_learnable_per_channel_affine(x, *grid, self.axis, self.low, self.high)
        return torch.fake_quantize_per_channel_affine(x, *grid, self.axis, self.low, self.high)


_PER_CHANNEL = (
    torch.per_channel_affine,
    torch.per_channel_symmetric,
    torch.per_channel_affine_float_qparams,
)


def exported(
    module: nn.Module, example: Sequence[Any] | None, input_shapes: Mapping[str, Sequence[int]], file: str
) -> Any:
    """A torch.export.ExportedProgram of `module` at inference.

    example : its positional inputs; without it, float32 tensors of `input_shapes`.
    """
    inputs = _inputs(module, input_shapes, file) if example is None else tuple(example)
    with _foreign(file):
        plain = in_eval_mode(copy.deepcopy(module))
    _without_simulation(plain, file)
    with _foreign(file):
        return torch.export.export(plain, inputs, strict=False)


@contextlib.contextmanager
def _foreign(file: str) -> Iterator[None]:
    """The model's own code runs inside; its errors, and torch's about it, become one line."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except _FOREIGN_ERRORS as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"torch.export cannot export it: {(lines or [type(error).__name__])[0][:200]}"
        remedy = "make it exportable, or trace it with torch.jit.trace and import that"
        raise UnsupportedError(located(reason, file=file, remedy=remedy)) from None


def in_eval_mode(plain: nn.Module) -> nn.Module:
    """The module itself, with all its parts at inference."""
    with contextlib.suppress(NotImplementedError):  # exported modules have one mode and refuse to be asked
        plain.eval()
    for part in plain.modules():  # those after such a module have not been asked
        part.training = False
    return plain


def _without_simulation(plain: nn.Module, file: str) -> None:
    """Makes each fake quantization one operator and takes the observers away."""
    made: dict[int, nn.Module] = {}
    for path, parent in list(plain.named_modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and _is_simulation(child):
                place = f"'{path}.{name}'" if path else f"'{name}'"
                if id(child) not in made:
                    made[id(child)] = _replacement(child, file, place)
                parent._modules[name] = made[id(child)]


def _is_simulation(module: nn.Module) -> bool:
    """FakeQuantize and observers as torch and torchao define them, not overridden by a user."""
    family = [cls.__name__ for cls in type(module).__mro__]
    forward = type(module).forward.__module__ or ""  # generated code has none
    known = forward.startswith(("torch.ao.quantization", "torchao.quantization.pt2e"))
    return known and ("FakeQuantizeBase" in family or "ObserverBase" in family)


def _replacement(module: nn.Module, file: str, place: str) -> nn.Module:
    if not hasattr(module, "fake_quant_enabled") or not bool(module.fake_quant_enabled.any()):
        return nn.Identity()
    learnable = hasattr(module, "static_enabled")
    if not learnable:
        _check_observed(module, file, place)
    made = _FakeQuantized(module, learnable)
    if hasattr(module, "is_symmetric_quant"):
        _take_observed(made, module)
    if learnable:
        made.scale.clamp_(min=float(module.eps))
        if module.qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric):
            made.zero_point.zero_()
    return made


def _take_observed(made: _FakeQuantized, module: nn.Module) -> None:
    """The fused operator makes its parameters anew from the range that it observed."""
    observer = module.activation_post_process
    least, most = (value.detach().reshape(-1).numpy() for value in (observer.min_val, observer.max_val))
    grid = observed_grid(least, most, made.low, made.high, bool(module.is_symmetric_quant))
    made.scale, made.zero_point = (torch.from_numpy(part) for part in grid)


def _check_observed(module: nn.Module, file: str, place: str) -> None:
    """An observer that has seen data knows a least and a greatest value."""
    least = getattr(module.activation_post_process, "min_val", None)
    if least is not None and (least.numel() == 0 or bool(torch.isinf(least).any())):
        reason = "its observer has seen no data"
        remedy = "run the model on data before it is imported"
        raise InputError(located(reason, file=file, node=place, remedy=remedy))


def _inputs(
    module: nn.Module, input_shapes: Mapping[str, Sequence[int]], file: str
) -> tuple[torch.Tensor, ...]:
    names = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY)
        and (parameter.default is parameter.empty or name in input_shapes)
    ]
    if sorted(names) != sorted(input_shapes):
        reason = f"the shapes of its inputs are needed: {', '.join(names)}"
        remedy = "give input_shapes for each, or import the pair (module, example inputs)"
        raise InputError(located(reason, file=file, remedy=remedy))
    if any(size <= 0 for shape in input_shapes.values() for size in shape):
        raise InputError(located("sizes of inputs must be positive", file=file))
    return tuple(torch.zeros([int(size) for size in input_shapes[name]]) for name in names)
