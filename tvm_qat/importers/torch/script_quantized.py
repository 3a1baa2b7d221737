"""Quantized tensors of TorchScript: torch.quint8 and its kin, and the operators of `quantized::`.

    y = quantized::conv2d_relu(x, packed, s, z)  ->  a = relu(conv2d(dequantize(x), dequantize(w)) + b)
                                                     y = dequantize(quantize(a, s, z))

Packed parameters are unpacked by torch. Operators that torch runs on quantized tensors without
parameters of their own keep those of their input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.torch.script_values import SCALAR_TYPES
from tvm_qat.importers.torch.table import converter_of
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, const, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

_STORAGE = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized tensor. real_expr : its values as float32, which are on the grid of `params`."""

    real_expr: Expr
    params: QParams


def float_operator(write: Writer, name: str, op: str, **arguments: Any) -> Expr:
    """One of the converters of the table."""
    converter = converter_of(op)
    if converter is None:
        raise UnsupportedError(f"{op} has no translation")
    result: Expr = write(converter(write, Node(name, op, arguments)))
    return result


def quantized(write: Writer, real: Expr, params: QParams, formula: str = "half_even") -> Quantized:
    q = write(build.quantize(real, params, formula))
    return Quantized(write(build.dequantize(q, params)), params)


def parameters(scale: Any, zero_point: Any, dtype: str = "uint8") -> QParams:
    """scale, zero_point : numbers, or tensors of one element."""
    values = [value.item() if hasattr(value, "item") else value for value in (scale, zero_point)]
    if not isinstance(values[0], int | float) or not isinstance(values[1], int | float):
        raise UnsupportedError("its scale or zero point is computed at run time")
    return QParams(np.float32(values[0]), np.int32(values[1]), dtype)


def stored(tensor: Any) -> tuple[np.ndarray[Any, Any], QParams]:
    """Integers and parameters of a quantized torch.Tensor."""
    import torch

    dtype = _STORAGE.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise UnsupportedError(f"weights of {tensor.dtype} are not supported")
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        params = QParams(np.float32(tensor.q_scale()), np.int32(tensor.q_zero_point()), dtype)
    elif tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scales = tensor.q_per_channel_scales().numpy().astype(np.float32)
        zero_points = tensor.q_per_channel_zero_points().numpy()
        params = QParams(scales, zero_points, dtype, tensor.q_per_channel_axis())
    else:
        raise UnsupportedError("zero points that are no integers are not supported")
    return tensor.int_repr().contiguous().numpy(), params


def constant(write: Writer, tensor: Any) -> Quantized:
    """A quantized torch.Tensor that the model holds."""
    values, params = stored(tensor)
    return Quantized(write(build.dequantize(const(values), params)), params)


Arguments = Mapping[str, Any]
Operator = Callable[[Writer, str, Arguments], Any]


def _quantize_per_tensor(write: Writer, _name: str, named: Arguments) -> Quantized:
    dtype = _STORAGE.get(SCALAR_TYPES.get(named["dtype"], ""))
    if dtype is None:
        raise UnsupportedError(f"quantizing to the data type {named['dtype']} is not supported")
    params = parameters(named["scale"], named["zero_point"], dtype)
    return quantized(write, named["self"], params, "reciprocal_fused")


def _quantize_per_channel(write: Writer, _name: str, named: Arguments) -> Quantized:
    dtype = _STORAGE.get(SCALAR_TYPES.get(named["dtype"], ""))
    if dtype is None or not hasattr(named["scales"], "numpy"):
        raise UnsupportedError("its parameters are computed at run time, or its data type is not known")
    scales, zero_points = (named[key].numpy() for key in ("scales", "zero_points"))
    if not np.issubdtype(zero_points.dtype, np.integer):
        raise UnsupportedError("zero points that are no integers are not supported")
    params = QParams(scales.astype(np.float32), zero_points, dtype, named["axis"])
    return quantized(write, named["self"], params, "reciprocal_zero_point_inside")


def _dequantize(_write: Writer, _name: str, named: Arguments) -> Any:
    value = named.get("self", named.get("tensors"))
    return [part.real_expr for part in value] if isinstance(value, list) else _real(value)


def _real(value: Any) -> Any:
    return value.real_expr if isinstance(value, Quantized) else value


def _conv(rank: int, relu: bool, transposed: bool = False) -> Operator:
    """quantized::conv2d and its kin; attributes come with the packed weight, one-dimensional ones as 2-D."""

    def convert(write: Writer, name: str, named: Arguments) -> Quantized:
        packed = named["packed_weight"]
        weight, bias = packed.unpack()
        window = {
            "stride": packed.stride(), "padding": packed.padding(), "dilation": packed.dilation(),
        }  # fmt: skip
        if transposed:
            window["output_padding"] = packed.output_padding()
        if rank == 1 and weight.dim() == 4:
            weight = weight.squeeze(2)
        result = float_operator(
            write, name, f"aten.conv{'_transpose' if transposed else ''}{rank}d",
            input=named["qx"].real_expr, weight=constant(write, weight).real_expr, bias=_bias(bias),
            groups=packed.groups(), **{key: list(values)[-rank:] for key, values in window.items()},
        )  # fmt: skip
        return _requantized(write, result, named, relu)

    return convert


def _linear(relu: bool) -> Operator:
    def convert(write: Writer, name: str, named: Arguments) -> Quantized:
        weight, bias = named["W_prepack"].unpack()
        real = named["X"].real_expr
        result = float_operator(
            write, name, "aten.linear", input=real, weight=constant(write, weight).real_expr, bias=_bias(bias)
        )
        scale = parameters(named["Y_scale_i"], named["Y_zero_point_i"], named["X"].params.dtype)
        return quantized(write, write(relax.op.nn.relu(result)) if relu else result, scale)

    return convert


def _bias(bias: Any) -> Expr | None:
    return None if bias is None else const(bias.detach().numpy())


def _requantized(
    write: Writer, real: Expr, named: Arguments, relu: bool, formula: str = "half_even"
) -> Quantized:
    """With the output's parameters, as the operators that have their own name them."""
    scale = next(named[key] for key in _SCALES if key in named)
    zero_point = next(named[key] for key in _ZERO_POINTS if key in named)
    source = next(v for v in named.values() if isinstance(v, Quantized))
    real = write(relax.op.nn.relu(real)) if relu else real
    if scale is None or zero_point is None:
        return quantized(write, real, source.params, formula)
    return quantized(write, real, parameters(scale, zero_point, source.params.dtype), formula)


_SCALES = ("output_scale", "scale")
_ZERO_POINTS = ("output_zero_point", "zero_point")


def _binary(function: Callable[[Expr, Expr], Expr], relu: bool) -> Operator:
    def convert(write: Writer, _name: str, named: Arguments) -> Quantized:
        left, right = (named[key].real_expr for key in ("qa", "qb"))
        return _requantized(write, write(function(left, right)), named, relu)

    return convert


def _cat(relu: bool) -> Operator:
    def convert(write: Writer, _name: str, named: Arguments) -> Quantized:
        parts = named["qx"]
        joined = write(relax.op.concat([part.real_expr for part in parts], axis=named["dim"]))
        return _requantized(write, joined, {**named, "first": parts[0]}, relu)

    return convert


def _mul_scalar(relu: bool) -> Operator:
    """Scales the scale: exact for a positive factor (qmul.cpp, mul_scalar)."""

    def convert(write: Writer, _name: str, named: Arguments) -> Quantized:
        factor, x = float(named.get("b", named.get("other"))), named["qa"]
        if factor <= 0:
            raise UnsupportedError("the product of a quantized tensor with a number that is not positive")
        params = x.params.with_(scale=np.float32(x.params.scale) * np.float32(factor))
        real = write(relax.op.multiply(x.real_expr, const(np.float32(factor))))
        return quantized(write, write(relax.op.nn.relu(real)) if relu else real, params)

    return convert


def _add_scalar(relu: bool) -> Operator:
    """Moves the zero point by the number, in steps rounded half to even (qadd.cpp, _add_scalar_out)."""

    def convert(write: Writer, _name: str, named: Arguments) -> Quantized:
        x = named["qa"]
        steps = np.rint(float(named["b"]) / float(x.params.scale))
        zero_point = int(x.params.zero_point) - int(steps)
        low, high = x.params.range
        if not low <= zero_point <= high:
            raise UnsupportedError("the sum with a number so large that torch changes the scale")
        shift = np.float32(steps * float(x.params.scale))
        real = write(relax.op.add(x.real_expr, const(shift)))
        params = x.params.with_(zero_point=np.int32(zero_point))
        return quantized(write, write(relax.op.nn.relu(real)) if relu else real, params)

    return convert


def _batch_norm(relu: bool) -> Operator:
    def convert(write: Writer, name: str, named: Arguments) -> Quantized:
        mean, variance = named["mean"], named["var"]
        result = float_operator(
            write, name, "aten.batch_norm", input=named["qx"].real_expr, weight=_const(named["weight"]),
            bias=_const(named["bias"]), running_mean=_const(mean), running_var=_const(variance),
            training=False, momentum=0.1, eps=named["eps"], cudnn_enabled=False,
        )  # fmt: skip
        return _requantized(write, result, named, relu)

    return convert


def _const(value: Any) -> Any:
    return const(value.detach().numpy()) if hasattr(value, "detach") else value


def _unary(op: str, operand: str = "self") -> Operator:
    """An elementwise operator with parameters for its output; torch quantizes it as quantize_per_tensor."""

    def convert(write: Writer, name: str, named: Arguments) -> Quantized:
        source = next(v for v in named.values() if isinstance(v, Quantized))
        left_out = ("output_scale", "output_zero_point", "inplace")
        plain = {k: v for k, v in named.items() if k not in left_out and not isinstance(v, Quantized)}
        result = float_operator(write, name, op, **{operand: source.real_expr}, **plain)
        return _requantized(write, result, named, relu=False, formula="reciprocal_fused")

    return convert


def _relu6(write: Writer, _name: str, named: Arguments) -> Quantized:
    return quantized(write, write(relax.op.clip(named["qx"].real_expr, 0.0, 6.0)), named["qx"].params)


OPERATORS: dict[str, Operator] = {
    "aten.quantize_per_tensor": _quantize_per_tensor,
    "aten.quantize_per_channel": _quantize_per_channel,
    "aten.dequantize": _dequantize,
    **{
        f"quantized.conv{rank}d{'_relu' if relu else ''}": _conv(rank, relu)
        for rank in (1, 2, 3) for relu in (False, True)
    },
    **{f"quantized.conv_transpose{rank}d": _conv(rank, False, transposed=True) for rank in (1, 2, 3)},
    "quantized.linear": _linear(relu=False),
    "quantized.linear_relu": _linear(relu=True),
    **{
        f"quantized.{name}{'_relu' if relu else ''}": _binary(function, relu)
        for name, function in (("add", relax.op.add), ("mul", relax.op.multiply)) for relu in (False, True)
    },
    "quantized.cat": _cat(relu=False),
    "quantized.cat_relu": _cat(relu=True),
    "quantized.mul_scalar": _mul_scalar(relu=False),
    "quantized.mul_scalar_relu": _mul_scalar(relu=True),
    "quantized.add_scalar": _add_scalar(relu=False),
    "quantized.add_scalar_relu": _add_scalar(relu=True),
    **{
        f"quantized.batch_norm{rank}{'_relu' if relu else ''}": _batch_norm(relu)
        for rank in ("", "1d", "2d", "3d") for relu in (False, True)
    },
    "quantized.hardswish": _unary("aten.hardswish"),
    "quantized.leaky_relu": _unary("aten.leaky_relu"),
    "quantized.elu": _unary("aten.elu"),
    "quantized.sigmoid": _unary("aten.sigmoid"),
    "quantized.softmax": _unary("aten.softmax"),
    "quantized.relu6": _relu6,
}  # fmt: skip
"""Operators that make quantized tensors or take packed parameters."""

_MOVES = frozenset(
    f"aten.{name}" for name in (
        "alias", "chunk", "clone", "contiguous", "detach", "dropout", "expand", "feature_dropout", "flatten",
        "max_pool1d", "max_pool2d", "max_pool3d", "narrow", "permute", "pixel_shuffle", "relu", "repeat",
        "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "to", "transpose",
        "unbind", "unflatten", "unsqueeze", "upsample_nearest2d", "view", "channel_shuffle",
    )
)  # fmt: skip
_KEEPS_GRID = frozenset(
    f"aten.{name}" for name in (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d",
        "avg_pool3d", "cat", "clamp", "hardtanh", "leaky_relu", "mean", "relu6", "upsample_bilinear2d",
    )
)  # fmt: skip
_FIXED_GRIDS = {
    ("aten.sigmoid", "uint8"): (1 / 256, 0),
    ("aten.hardsigmoid", "uint8"): (1 / 256, 0),
    ("aten.sigmoid", "int8"): (1 / 256, -128),
    ("aten.hardsigmoid", "int8"): (1 / 256, -128),
    ("aten.tanh", "uint8"): (2 / 256, 128),
    ("aten.tanh", "int8"): (2 / 256, 0),
}
"""Scale and zero point of operators whose output has one range (ATen/native/quantized/cpu, qsigmoid.cpp
and qtanh.cpp)."""


def keeps_quantized(op: str) -> bool:
    """Whether torch runs this float operator on quantized tensors too, and we know how."""
    return op in _MOVES or op in _KEEPS_GRID or any(op == name for name, _ in _FIXED_GRIDS)


def regrid(write: Writer, op: str, source: Quantized, real: Expr) -> Quantized:
    """The result of a float operator on the real values of `source`, as a quantized tensor."""
    if op in _MOVES:
        return Quantized(real, source.params)
    if op in _KEEPS_GRID:
        return quantized(write, real, source.params)
    grid = _FIXED_GRIDS.get((op, source.params.dtype))
    if grid is None:
        raise UnsupportedError(f"{op} of a quantized tensor is not supported")
    return quantized(write, real, parameters(*grid, source.params.dtype), "reciprocal_fused")
