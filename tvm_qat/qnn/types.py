"""Type rules of the dialect: the shapes are those of the float operator TVM already knows."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError
from tvm_qat.ir import Expr, Tuple, Var, attrs_of, dtype_of, relax, shape_of, source_of
from tvm_qat.ir import TensorType as Tensor

QUANTIZED = ("int8", "uint8", "int16", "uint16", "int32")


def _float_twin(expr: Expr) -> Expr:
    """A float32 variable of the same shape, to ask TVM's own type rules."""
    if isinstance(expr, Tuple):
        return Tuple([_float_twin(field) for field in expr.fields])
    return Var("twin", _typed(expr, "float32"))


def _typed(expr: Expr, dtype: str) -> Any:
    ty = expr.ty
    return Tensor(ty.shape, dtype) if ty.shape is not None else Tensor(dtype=dtype, ndim=ty.ndim)


def _as(expr: Expr, builder: Any, dtype: str) -> Any:
    """The type of a float expression with another dtype."""
    return _typed(builder.normalize(expr), dtype)


def _require(call: Expr, condition: bool, reason: str) -> None:
    if not condition:
        raise InputError(f"{call.op.name} at {source_of(call) or 'an unnamed node'}: {reason}")


def _require_integers(call: Expr, *indices: int) -> None:
    for index in indices:
        dtype = dtype_of(call.args[index])
        _require(call, dtype in QUANTIZED, f"operand {index} is {dtype or 'not a tensor'}, not quantized")


def quantize(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in ("float32", "float16", "bfloat16"), "data is not float")
    return _typed(call.args[0], attrs_of(call)["out_dtype"])


def dequantize(call: Expr, _builder: Any) -> Any:
    _require_integers(call, 0)
    return _typed(call.args[0], attrs_of(call).get("out_dtype", "float32"))


def requantize(call: Expr, _builder: Any) -> Any:
    _require_integers(call, 0)
    return _typed(call.args[0], attrs_of(call)["out_dtype"])


def same(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]).startswith(("float", "bfloat")), "data is not float")
    return call.args[0].ty


def conv(call: Expr, builder: Any) -> Any:
    """conv1d, conv2d and conv3d; int32."""
    _require_integers(call, 0, 1)
    kind = {3: relax.op.nn.conv1d, 4: relax.op.nn.conv2d, 5: relax.op.nn.conv3d}[call.args[0].ty.ndim]
    return _as(kind(*_twins(call), **_window(call)), builder, "int32")


def conv2d_transpose(call: Expr, builder: Any) -> Any:
    """TVM has no rule for channels-last, so the shape is computed from the IOHW, NCHW form."""
    _require_integers(call, 0, 1)
    attrs = attrs_of(call)
    layout, kernel = attrs["data_layout"], attrs["kernel_layout"]
    data, weight = shape_of(call.args[0]), shape_of(call.args[1])
    _require(call, data is not None and weight is not None, "the rank is not known")
    assert data is not None and weight is not None
    size = {"N": data[layout.index("N")], "C": weight[kernel.index("O")] * attrs["groups"]}
    for i, axis in enumerate("HW"):
        grown = (data[layout.index(axis)] - 1) * attrs["strides"][i]
        reach = (weight[kernel.index(axis)] - 1) * attrs["dilation"][i] + 1
        cut = attrs["padding"][i] + attrs["padding"][i + 2]
        size[axis] = grown + reach - cut + attrs["output_padding"][i]
    return Tensor([size[axis] for axis in layout], "int32")


def dense(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    units, depth = shape_of(call.args[1]) or (None, None)
    _require(call, units is not None, "the weight's shape is not known")
    transposed = Var("twin", Tensor((depth, units), "float32"))
    return _as(relax.op.matmul(_float_twin(call.args[0]), transposed), builder, "int32")


def batch_matmul(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    return _as(relax.op.matmul(*_twins(call)), builder, "int32")


def elementwise(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0, 1)
    return _as(relax.op.add(*_twins(call)), builder, attrs_of(call)["out_dtype"])


def concatenate(call: Expr, builder: Any) -> Any:
    attrs = attrs_of(call)
    twin = relax.op.concat(_float_twin(call.args[0]), axis=attrs["axis"])
    return _as(twin, builder, attrs["out_dtype"])


def avg_pool(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0)
    attrs = attrs_of(call)
    kind = {3: relax.op.nn.avg_pool1d, 4: relax.op.nn.avg_pool2d, 5: relax.op.nn.avg_pool3d}
    names = ("pool_size", "strides", "padding", "dilation", "ceil_mode", "count_include_pad", "layout")
    pooled = kind[call.args[0].ty.ndim](_float_twin(call.args[0]), **{n: attrs[n] for n in names})
    return _as(pooled, builder, attrs["out_dtype"])


def mean(call: Expr, builder: Any) -> Any:
    _require_integers(call, 0)
    attrs = attrs_of(call)
    reduced = relax.op.mean(_float_twin(call.args[0]), axis=attrs["axis"], keepdims=bool(attrs["keepdims"]))
    return _as(reduced, builder, attrs["out_dtype"])


def softmax(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in ("int8", "uint8"), "softmax needs 8-bit data")
    return _typed(call.args[0], attrs_of(call)["out_dtype"])


def lut(call: Expr, _builder: Any) -> Any:
    _require(call, dtype_of(call.args[0]) in ("int8", "uint8"), "a table needs 8-bit data")
    _require(call, shape_of(call.args[1]) == (256,), "the table must have 256 entries")
    return _typed(call.args[0], dtype_of(call.args[1]))


def _twins(call: Expr) -> tuple[Expr, Expr]:
    return _float_twin(call.args[0]), _float_twin(call.args[1])


def _window(call: Expr) -> dict[str, Any]:
    names = ("strides", "padding", "dilation", "groups", "data_layout", "kernel_layout")
    attrs = attrs_of(call)
    return {name: attrs[name] for name in names}
