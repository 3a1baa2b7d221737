"""Type rules of the dialect: the shapes are those of the float operator TVM already knows.

A wrong call raises InputError with the operator and the source node, whoever noticed: TVM's own
complaint about the float operator is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tvm_qat.errors import InputError
from tvm_qat.ir import Expr, Tuple, Var, attrs_of, dtype_of, relax, shape_of, source_of
from tvm_qat.ir import TensorType as Tensor

QUANTIZED = ("int8", "uint8", "int16", "uint16", "int32")
FLOATS = ("float32", "float16", "bfloat16")


def _float_twin(expr: Expr) -> Expr:
    """A float32 variable of the same shape, to ask TVM's own type rules."""
    if isinstance(expr, Tuple):
        return Tuple([_float_twin(field) for field in expr.fields])
    return Var("twin", _typed(expr, "float32"))


def _typed(expr: Expr, dtype: str) -> Any:
    ty = expr.ty
    return Tensor(ty.shape, dtype) if ty.shape is not None else Tensor(dtype=dtype, ndim=ty.ndim)


def _like(call: Expr, builder: Any, dtype: str, make: Callable[[], Expr]) -> Any:
    """The type of a float expression with another dtype."""
    try:
        return _typed(builder.normalize(make()), dtype)
    except (ValueError, TypeError) as error:
        raise InputError(
            _message(call, re.sub(r"^In ir\.Op\(.*support_level=\d+\), ", "", str(error)))
        ) from None


def _message(call: Expr, reason: str) -> str:
    return f"{call.op.name} at {source_of(call) or 'an unnamed node'}: {' '.join(reason.split())}"


def _require(call: Expr, condition: bool, reason: str) -> None:
    if not condition:
        raise InputError(_message(call, reason))


def _require_integers(call: Expr, *indices: int) -> None:
    for index in indices:
        dtype = dtype_of(call.args[index])
        _require(call, dtype in QUANTIZED, f"operand {index} is {dtype or 'not a tensor'}, not quantized")


def _require_per_tensor(call: Expr, *indices: int) -> None:
    """Scale or zero point operands that must be scalars."""
    for index in indices:
        shape = shape_of(call.args[index])
        _require(call, shape is None or shape in ((), (1,)), f"operand {index} must be a scalar, not {shape}")


def _require_channels(call: Expr, first: int, role: str, data: Expr) -> None:
    """Scale and zero point, operands `first` and the next, are scalars or as long as data's axis."""
    axis, shape = attrs_of(call).get(f"{role}_axis"), shape_of(data)
    for operand in call.args[first : first + 2]:
        given = shape_of(operand)
        if given is None or given in ((), (1,)) or shape is None:
            continue
        in_range = isinstance(axis, int) and -len(shape) <= axis < len(shape)
        _require(call, in_range, f"{role} parameters of shape {given} along axis {axis} of {len(shape)}")
        size = shape[int(axis or 0)]
        same = not isinstance(size, int) or given == (size,)
        _require(call, same, f"{role} parameters of shape {given} for {size} channels on axis {axis}")


def _require_extent(call: Expr, shape: Any) -> None:
    """Static dimensions but the batch are positive: the window fits into its padded input."""
    empty = any(isinstance(d, int) and d < 1 for d in shape[1:])
    _require(call, not empty, f"the window does not fit into its padded input: result {list(shape)}")


def quantize(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in FLOATS, "data is not float")
    _require_channels(call, 1, "output", call.args[0])
    return _typed(call.args[0], attrs_of(call)["out_dtype"])


def dequantize(call: Expr, _builder: Any) -> Any:
    _require_integers(call, 0)
    _require_channels(call, 1, "input", call.args[0])
    return _typed(call.args[0], attrs_of(call).get("out_dtype", "float32"))


def requantize(call: Expr, _builder: Any) -> Any:
    _require_integers(call, 0)
    _require_channels(call, 1, "input", call.args[0])
    _require_channels(call, 3, "output", call.args[0])
    attrs = attrs_of(call)
    axes = {attrs[name] for name in ("input_axis", "output_axis") if name in attrs}
    _require(call, len(axes) < 2, "input and output have channels on different axes")
    return _typed(call.args[0], attrs["out_dtype"])


def fake_quantize(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in FLOATS, "data is not float")
    _require_channels(call, 1, "output", call.args[0])
    return call.args[0].ty


def conv(call: Expr, builder: Any) -> Any:
    """conv1d, conv2d and conv3d; int32."""
    spatial = int(call.op.name[-2])
    attrs = _window(call, spatial)
    _require_zero_points(call, attrs["kernel_layout"].index("O"))
    kind = (relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d)[spatial - 1]
    ty = _like(call, builder, "int32", lambda: kind(*_twins(call), **attrs))
    _require_extent(call, _dimensions(ty))
    return ty


def conv2d_transpose(call: Expr, _builder: Any) -> Any:
    """TVM has no rule for channels-last, so the shape is computed from the IOHW, NCHW form."""
    attrs = _window(call, 2) | {"output_padding": attrs_of(call)["output_padding"]}
    layout, kernel = attrs["data_layout"], attrs["kernel_layout"]
    _require_zero_points(call, kernel.index("O"))
    data, weight = shape_of(call.args[0]), shape_of(call.args[1])
    _require(call, data is not None and weight is not None, "the rank is not known")
    assert data is not None and weight is not None
    channels, inputs = data[layout.index("C")], weight[kernel.index("I")]
    both = isinstance(channels, int) and isinstance(inputs, int)
    _require(call, not both or channels == inputs, f"{channels} channels, but a weight for {inputs}")
    _require(
        call, not both or inputs % attrs["groups"] == 0, f"{inputs} channels in {attrs['groups']} groups"
    )
    size = {"N": data[layout.index("N")], "C": weight[kernel.index("O")] * attrs["groups"]}
    for i, axis in enumerate("HW"):
        grown = (data[layout.index(axis)] - 1) * attrs["strides"][i]
        reach = (weight[kernel.index(axis)] - 1) * attrs["dilation"][i] + 1
        cut = attrs["padding"][i] + attrs["padding"][i + 2]
        size[axis] = grown + reach - cut + attrs["output_padding"][i]
    shape = [size[axis] for axis in layout]
    _require_extent(call, shape)
    return Tensor(shape, "int32")


def dense(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    weight = shape_of(call.args[1])
    _require(call, weight is not None and len(weight) == 2, f"the weight must be [N, K], not {weight}")
    assert weight is not None
    _require_zero_points(call, 0)
    transposed = Var("twin", Tensor((weight[1], weight[0]), "float32"))
    return _like(call, builder, "int32", lambda: relax.op.matmul(_float_twin(call.args[0]), transposed))


def batch_matmul(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    _require_per_tensor(call, 2, 3)
    return _like(call, builder, "int32", lambda: relax.op.matmul(*_twins(call)))


def elementwise(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    _require_channels(call, 2, "lhs", call.args[0])
    _require_channels(call, 4, "rhs", call.args[1])
    _require_per_tensor(call, 6, 7)
    ty = _like(call, builder, attrs_of(call)["out_dtype"], lambda: relax.op.add(*_twins(call)))
    for operand, role in zip(call.args[:2], ("lhs", "rhs"), strict=True):
        aligned = f"{role}_axis" not in attrs_of(call) or operand.ty.ndim == ty.ndim
        _require(call, aligned, f"{role} has channels, so it needs the rank of the result")
    return ty


def concatenate(call: Expr, builder: Any) -> Any:
    attrs = attrs_of(call)
    for operand in (*call.args[1].fields, *call.args[2].fields):
        _require(call, shape_of(operand) in (None, (), (1,)), "its parts are quantized per tensor")
    _require_per_tensor(call, 3, 4)
    return _like(
        call, builder, attrs["out_dtype"],
        lambda: relax.op.concat(_float_twin(call.args[0]), axis=attrs["axis"]),
    )  # fmt: skip


def avg_pool(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0)
    _require_per_tensor(call, 1, 2, 3, 4)
    attrs, ndim = attrs_of(call), call.args[0].ty.ndim
    dims = len(attrs["pool_size"])
    _require(call, ndim == dims + 2 == len(attrs["layout"]), f"rank {ndim} does not fit {attrs['layout']}")
    _require(call, len(attrs["padding"]) == 2 * dims, f"padding needs {2 * dims} numbers")
    kind = (relax.op.nn.avg_pool1d, relax.op.nn.avg_pool2d, relax.op.nn.avg_pool3d)[dims - 1]
    names = ("pool_size", "strides", "padding", "dilation", "ceil_mode", "count_include_pad", "layout")
    window = {name: attrs[name] for name in names}
    ty = _like(call, builder, attrs["out_dtype"], lambda: kind(_float_twin(call.args[0]), **window))
    _require_extent(call, _dimensions(ty))
    return ty


def mean(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0)
    _require_per_tensor(call, 1, 2, 3, 4)
    attrs = attrs_of(call)
    axis, keepdims = attrs["axis"], bool(attrs["keepdims"])
    return _like(
        call, builder, attrs["out_dtype"],
        lambda: relax.op.mean(_float_twin(call.args[0]), axis=axis, keepdims=keepdims),
    )  # fmt: skip


def softmax(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in ("int8", "uint8"), "softmax needs 8-bit data")
    _require_per_tensor(call, 1, 2, 3, 4)
    axis, ndim = attrs_of(call)["axis"], call.args[0].ty.ndim
    _require(call, 0 <= axis < ndim, f"axis {axis} is out of range for rank {ndim}")
    return _typed(call.args[0], attrs_of(call)["out_dtype"])


def lut(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in ("int8", "uint8"), "a table needs 8-bit data")
    _require(call, shape_of(call.args[1]) == (256,), "the table must have 256 entries")
    return _typed(call.args[0], dtype_of(call.args[1]))


def _twins(call: Expr) -> tuple[Expr, Expr]:
    return _float_twin(call.args[0]), _float_twin(call.args[1])


def _dimensions(ty: Any) -> Any:
    return shape_of(Var("twin", ty)) or ()


def _require_zero_points(call: Expr, channel_axis: int) -> None:
    """The zero points of a linear operator: a scalar, and a scalar or one per output channel."""
    _require_per_tensor(call, 2)
    zero_points, weight = shape_of(call.args[3]), shape_of(call.args[1])
    if zero_points in (None, (), (1,)) or weight is None:
        return
    given = f"kernel zero points of shape {zero_points}, channels: {weight[channel_axis]}"
    _require(call, zero_points == (weight[channel_axis],), given)


def _window(call: Expr, spatial: int) -> dict[str, Any]:
    """The attributes of a convolution over `spatial` axes, after checking ranks and lengths."""
    _require_integers(call, 0, 1)
    names = ("strides", "padding", "dilation", "groups", "data_layout", "kernel_layout")
    attrs = {name: attrs_of(call)[name] for name in names}
    for operand, layout in zip(call.args[:2], (attrs["data_layout"], attrs["kernel_layout"]), strict=True):
        fits = operand.ty.ndim == spatial + 2 == len(layout)
        _require(call, fits, f"an operand of rank {operand.ty.ndim} does not fit layout {layout}")
    for name, length in (("strides", spatial), ("dilation", spatial), ("padding", 2 * spatial)):
        _require(call, len(attrs[name]) == length, f"{name} needs {length} numbers, not {len(attrs[name])}")
    return attrs
