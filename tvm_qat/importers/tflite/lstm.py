"""UNIDIRECTIONAL_SEQUENCE_LSTM, one step after the other.

What training and the integer kernels of TFLite agree on: gates are sums of 16 bits in steps of
2^-12, their sigmoid and tanh 16 bits in steps of 2^-15, the cell 16 bits on the grid of its
tensor, clipped; only the hidden state has 8. The four gates are one product, whose weights have
a scale for each gate, so a step has one recurrent product; the inputs of all steps are
multiplied at once. The state begins at zero in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tflite.node import ROUNDING, Node, plain
from tvm_qat.ir import Expr, Tuple, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

GATES = 4
"""Input, forget, cell, output: the order of TFLite's operands."""
GATE = QParams(np.asarray(2.0**-12), dtype="int16")
UNIT = QParams(np.asarray(2.0**-15), dtype="int16")
TANH = 4
MOST_STEPS = 256
_INPUT, _RECURRENT, _BIAS, _HIDDEN, _CELL = 1, 5, 12, 18, 19
_ABSENT = {
    "peepholes": range(9, 12),
    "a projection": range(16, 18),
    "normalized gates": range(20, 24),
}


@dataclass(frozen=True)
class _Cell:
    """The recurrent part: its weight [units, 4 * units] in real numbers, and the grids of its states.

    hidden, cell : None in a float model.
    """

    node: Node
    weight: Expr
    hidden: QParams | None
    cell: QParams | None
    units: int

    def on(self, grid: QParams | None, value: Expr) -> Expr:
        """`value` through a grid: quantized and turned back; as it is in a float model."""
        write = self.node.write
        if self.hidden is None or grid is None:
            return write(value)
        return write(build.dequantize(write(build.quantize(write(value), grid, ROUNDING)), grid))


def unidirectional_sequence_lstm(node: Node) -> Expr:
    options, shape = _checked(node), node.shape(0)
    time = 0 if options.TimeMajor() else 1
    steps, units = shape[time], node.shape(_RECURRENT)[0]
    if steps > MOST_STEPS:
        raise UnsupportedError(f"a sequence of {steps} steps is not supported; {MOST_STEPS} is the most")
    quantized = node.params(0) is not None
    cell = _Cell(
        node,
        _weights(node, _RECURRENT),
        node.outputs[0].params if quantized else None,
        _clipped(node, float(options.CellClip())),
        units,
    )
    gates = _of_inputs(node, cell)
    parts = node.write(relax.op.split(gates, steps, time))
    hidden, memory, results = None, None, []
    for step in range(steps):
        gate = node.write(relax.op.squeeze(node.write(parts[step]) if steps > 1 else gates, [time]))
        hidden, memory = _step(cell, gate, hidden, memory)
        results.append(node.write(relax.op.expand_dims(hidden, time)))
    return node.result(node.write(relax.op.concat(Tuple(results), axis=time)))


def _checked(node: Node) -> Any:
    """The options, after refusing the variants that have another arithmetic."""
    options = node.options("UnidirectionalSequenceLSTMOptions")
    for what, places in _ABSENT.items():
        if any(node.has(place) for place in places):
            raise UnsupportedError(f"an LSTM with {what} is not supported")
    if options.FusedActivationFunction() != TANH or not node.has(_INPUT):
        raise UnsupportedError(
            "an LSTM with another activation than tanh, or coupled gates, is not supported"
        )
    if len(node.shape(0)) != 3:
        raise InputError(f"its input has rank {len(node.shape(0))}, not 3")
    hidden, result = node.params(_HIDDEN), node.outputs[0].params
    if (hidden is None) != (result is None) or (hidden is not None and hidden != result):
        raise InputError("its state and its result are quantized differently")
    return options


def _weights(node: Node, first: int) -> Expr:
    """Four weights [units, K] side by side, [K, 4 * units]; one scale for each gate's columns."""
    arrays = [node.constant(first + i) for i in range(GATES)]
    params = [node.params(first + i) for i in range(GATES)]
    if any(array is None or array.ndim != 2 for array in arrays):
        raise UnsupportedError("weights that are no constant matrices are not supported")
    joined = np.concatenate([array for array in arrays if array is not None]).T
    known = [p for p in params if p is not None]
    if not known:
        return plain(joined)
    if len(known) < GATES or any(p.per_channel or p.zero_point.any() or p.dtype != "int8" for p in known):
        raise UnsupportedError("weights that are not symmetric, per tensor and of 8 bits are not supported")
    scales = np.repeat([float(p.scale) for p in known], joined.shape[1] // GATES)
    return node.write(build.dequantize(plain(joined), QParams(scales, dtype="int8", axis=1)))


def _of_inputs(node: Node, cell: _Cell) -> Expr:
    """What the inputs of all steps and the biases add to the gates: [batch, time, 4 * units]."""
    product = node.write(relax.op.matmul(node.real(0), _weights(node, _INPUT)))
    biases = [node.constant(_BIAS + i) for i in range(GATES)]
    if any(bias is None for bias in biases):
        raise UnsupportedError("biases that are no constants are not supported")
    joined = np.concatenate([np.asarray(bias) for bias in biases])
    x, weights = node.params(0), [node.params(_INPUT + i) for i in range(GATES)]
    if x is None or joined.dtype == np.float32:
        return cell.on(GATE, relax.op.add(product, plain(joined.astype(np.float32))))
    scales = np.repeat([float(x.scale * w.scale) for w in weights if w is not None], cell.units)
    grid = QParams(scales, dtype="int32", axis=0)
    bias = node.write(build.dequantize(plain(joined, "int32"), grid))
    return cell.on(GATE, relax.op.add(product, bias))


def _clipped(node: Node, clip: float) -> QParams | None:
    """The cell's grid with its range cut to +-clip, as LiteRT cuts it: towards zero."""
    params = node.params(_CELL)
    if params is None or clip <= 0:
        return params
    most = min(int(np.float32(clip) / params.scale.astype(np.float32)), 32767)
    return params.with_(qmin=-most, qmax=most)


def _step(cell: _Cell, gate: Expr, hidden: Expr | None, memory: Expr | None) -> tuple[Expr, Expr]:
    """(hidden, memory) after one step, in real numbers; None stands for the zeros at the beginning."""
    write, op = cell.node.write, relax.op
    if hidden is not None:
        recurrent = cell.on(GATE, op.matmul(hidden, cell.weight))
        gate = cell.on(GATE, op.add(gate, recurrent))
    parts = write(op.split(gate, GATES, 1))
    into, keep, new, out = (write(parts[i]) for i in range(GATES))
    into, keep, out = (cell.on(UNIT, op.sigmoid(value)) for value in (into, keep, out))
    new = cell.on(UNIT, op.tanh(new))
    added = cell.on(cell.cell, op.multiply(into, new))
    if memory is not None:
        kept = cell.on(cell.cell, op.multiply(keep, memory))
        added = cell.on(cell.cell, op.add(kept, added))
    shown = cell.on(UNIT, op.tanh(added))
    return cell.on(cell.hidden, op.multiply(out, shown)), added
