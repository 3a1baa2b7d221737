"""A small quantized network, and faults to plant into it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    IRModule,
    TensorType,
    Tuple,
    Var,
    array_of,
    attrs_of,
    const,
    make_attrs,
    op_name,
    relax,
    rewrite,
    source_of,
    with_source,
)
from tvm_qat.qnn import build as qnn
from tvm_qat.qnn.table import argument
from tvm_qat.qparams import QParams

CHANNELS = 4
INPUT = QParams(np.array(2.0**-5), np.array(120), "uint8")
FIRST = QParams(np.array(2.0**-3), np.array(0), "uint8")
SECOND = QParams(np.array(2.0**-2), np.array(131), "uint8")
JOINED = QParams(np.array(2.0**-2 * 1.5), np.array(90), "uint8")
LAST = QParams(np.array(2.0**-1), np.array(128), "uint8")


def network() -> IRModule:
    """image (1, 4, 4, 4) -> conv1, relu -> conv2; both -> concat -> conv3, each quantized after it.

    Scales are powers of two, so that sums often lie on a tie.
    """
    builder = BlockBuilder()
    x = Var("image", TensorType((1, CHANNELS, 4, 4), "float32"))
    names = {"input_names": ["image"], "output_names": ["result"], "global_symbol": "main"}
    with builder.function("main", [x], attrs=names):
        with builder.dataflow():
            image = _quantized(builder, x, INPUT, "image")
            sums = builder.emit(with_source(relax.op.nn.relu(_conv(builder, image, 1, CHANNELS)), "relu1"))
            first = _quantized(builder, sums, FIRST, "conv1")
            second = _quantized(builder, _conv(builder, first, 2, CHANNELS), SECOND, "conv2")
            joined = builder.emit(with_source(relax.op.concat([first, second], 1), "concat"))
            last = _conv(builder, _quantized(builder, joined, JOINED, "concat"), 3, 2 * CHANNELS)
            result = builder.emit_output(_quantized(builder, last, LAST, "conv3"))
        builder.emit_func_output(result)
    return builder.get()


def _quantized(builder: BlockBuilder, x: Expr, grid: QParams, name: str) -> Expr:
    q = builder.emit(with_source(qnn.quantize(x, grid), f"{name}/quantize"))
    return builder.emit(with_source(qnn.dequantize(q, grid), f"{name}/dequantize"))


def _conv(builder: BlockBuilder, data: Expr, number: int, channels: int) -> Expr:
    """Weights of one scale for each channel, powers of two; a bias of whole steps of the sums."""
    rng = np.random.default_rng(number)
    weight = rng.integers(-20, 20, (CHANNELS, channels, 3, 3)).astype(np.int8)
    scale = 2.0 ** -rng.permutation([4, 5, 6, 7]).astype(np.float64)
    name = f"conv{number}"
    grid = QParams(scale, dtype="int8", axis=0)
    real = builder.emit(with_source(qnn.dequantize(const(weight), grid), f"{name}/weight"))
    bias = rng.integers(-300, 300, (1, CHANNELS, 1, 1)) * scale.reshape(1, -1, 1, 1) * 2.0**-3
    sums = builder.emit(with_source(relax.op.nn.conv2d(data, real, padding=1), name))
    return builder.emit(with_source(relax.op.add(sums, const(bias, "float32")), name))


def images(count: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.uniform(-3.5, 4, (count, CHANNELS, 4, 4)).astype(np.float32)}


Fault = Callable[[Expr], Expr]


def planted(mod: IRModule, node: str, op: str, fault: Fault) -> IRModule:
    """`mod` with the calls of `op` that come from `node` changed. Fails if there are none."""
    hits = []

    def visit(_builder: BlockBuilder, _var: Var, value: Expr) -> Expr | None:
        if source_of(value) != node or op_name(value) != op:
            return None
        hits.append(value)
        return fault(value)

    out = rewrite(mod, lambda _func: visit)
    assert hits, f"no {op} at {node}"
    return out


def with_operand(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Another value of a constant operand."""

    def fault(call: Expr) -> Expr:
        args = list(call.args)
        place = argument(op_name(call), name)
        before = array_of(args[place])
        args[place] = const(np.asarray(change(before), before.dtype))
        return Call(call.op, args, call.attrs, call.ty_args)

    return fault


def with_attrs(**changed: object) -> Fault:
    return lambda call: Call(call.op, call.args, make_attrs(**{**attrs_of(call), **changed}), call.ty_args)


def swapped(call: Expr) -> Expr:
    """A concatenation of its parts in the other order."""
    args = [Tuple(list(part.fields)[::-1]) if isinstance(part, Tuple) else part for part in call.args]
    return Call(call.op, args, call.attrs, call.ty_args)


def with_bias(change: float) -> Fault:
    """An addition of a constant, with the constant on another scale."""

    def fault(call: Expr) -> Expr:
        args = [
            const(np.rint(array_of(arg) * change).astype(np.int32)) if not isinstance(arg, Var) else arg
            for arg in call.args
        ]
        return Call(call.op, args, call.attrs, call.ty_args)

    return fault
