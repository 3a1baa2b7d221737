"""Random fake-quantized graphs whose arithmetic is exact, for property tests.

All scales are powers of two and all sums stay below 2^24, so float32 simulates integers without
rounding: a folded graph must give the same bits as its simulation, not nearly the same.

A program is a list of (operator, seed); the seed picks operands and parameters. Values have shape
(n, 4, 4, 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.graphs import Graph, graph, relax
from tvm_qat.ir import Expr, IRModule, Tuple, const
from tvm_qat.qparams import QParams

Rng = np.random.Generator
Program = list[tuple[str, int]]
SHAPE = (("n", 4, 4, 4), "float32")


def _grid(rng: Rng) -> QParams:
    dtype = str(rng.choice(["int8", "uint8"]))
    zero_point = int(rng.integers(-20, 20)) + (128 if dtype == "uint8" else 0)
    return QParams(np.array(2.0 ** rng.integers(-6, -3)), np.array(zero_point), dtype)


def _weight(b: Graph, rng: Rng, shape: tuple[int, ...], axis: int) -> Expr:
    per_channel = bool(rng.integers(2))
    scale = 2.0 ** rng.integers(-8, -6, shape[axis] if per_channel else ())
    return b.weight(shape, QParams(scale, axis=axis if per_channel else None), int(rng.integers(1000)))


def _conv(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    groups = int(rng.choice([1, 2, 4]))
    size = int(rng.choice([1, 3]))
    channels = int(x.ty.shape.values[1])
    weight = _weight(b, rng, (4, channels // groups, size, size), 0)
    c = b(relax.op.nn.conv2d(x, weight, padding=size // 2, groups=groups))
    if not rng.integers(2):
        return c
    bias = (rng.integers(-64, 64, (1, 4, 1, 1)) / 64).astype(np.float32)
    return b(relax.op.add(c, const(bias)))


def _transposed(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    return b(relax.op.nn.conv2d_transpose(x, _weight(b, rng, (4, 4, 3, 3), 1), padding=1))


def _matmul(b: Graph, rng: Rng, x: Expr, y: Expr) -> Expr:
    right = y if rng.integers(2) else _weight(b, rng, (4, 4), 1)
    return b(relax.op.matmul(x, right))


def _through_concat(b: Graph, rng: Rng, x: Expr, y: Expr) -> Expr:
    parts = [x, y] if rng.integers(2) else [y, b(relax.op.nn.relu(x))]
    joined = b(relax.op.concat(Tuple(parts), 1))
    start = int(rng.integers(5))
    return b(relax.op.strided_slice(joined, [1], [start], [start + 4]))


def _through_split(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    axis = int(rng.integers(1, 4))
    parts = b(relax.op.split(x, 2, axis))
    return b(relax.op.concat(Tuple([b(parts[1]), b(parts[0])]), axis))


def _pad_and_pool(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    padded = b(relax.op.nn.pad(x, [0, 0, 0, 0, 0, 1, 1, 0]))
    pool = relax.op.nn.max_pool2d if rng.integers(2) else relax.op.nn.avg_pool2d
    return b(pool(padded, (2, 2)))


def _clip(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    low = float(rng.integers(-32, 8)) / 8
    return b(relax.op.clip(x, low, low + float(rng.integers(1, 32)) / 8))


def _constant(b: Graph, rng: Rng, x: Expr, _y: Expr) -> Expr:
    shape = [(), (1, 4, 1, 1), (4,), (1, 4, 4, 4)][rng.integers(4)]
    value = const((rng.integers(-40, 40, shape) / 8).astype(np.float32))
    name = str(rng.choice(["add", "subtract", "multiply", "maximum", "minimum"]))
    pair = (x, value) if rng.integers(2) else (value, x)
    return b(getattr(relax.op, name)(*pair))


def _two(name: str) -> Callable[[Graph, Rng, Expr, Expr], Expr]:
    return lambda b, rng, x, y: b(getattr(relax.op, name)(x, y))


OPERATORS: dict[str, Callable[[Graph, Rng, Expr, Expr], Expr]] = {
    "conv": _conv,
    "transposed conv": _transposed,
    "matmul": _matmul,
    **{name: _two(name) for name in ("add", "subtract", "multiply", "maximum", "minimum")},
    "constant": _constant,
    "concat": _through_concat,
    "split": _through_split,
    "pool": _pad_and_pool,
    "clip": _clip,
    "relu": lambda b, rng, x, y: b(relax.op.nn.relu(x)),
    "leaky relu": lambda b, rng, x, y: b(relax.op.nn.leakyrelu(x, 0.25)),
    "mean": lambda b, rng, x, y: b(relax.op.add(x, b(relax.op.mean(y, [2, 3], True)))),
    "transpose": lambda b, rng, x, y: b(relax.op.permute_dims(x, [0, *(rng.permutation(3) + 1).tolist()])),
    "flip": lambda b, rng, x, y: b(relax.op.flip(x, int(rng.integers(1, 4)))),
}


class _Emitter:
    """Emits the values of a program on demand, each once."""

    def __init__(self, b: Graph, x: Expr, program: Program, detour: bool) -> None:
        self.b, self.program, self.detour = b, program, detour
        self.floats: dict[int, Expr] = {-1: x}
        self.fakes: dict[int, Expr] = {}

    def real(self, index: int) -> Expr:
        """The float result of a step; -1 is the input."""
        if index not in self.floats:
            name, seed = self.program[index]
            rng = np.random.default_rng(seed)
            x, y = (self.fake(int(i), rng) for i in rng.integers(-1, index, 2))
            self.floats[index] = OPERATORS[name](self.b, rng, x, y)
        return self.floats[index]

    def fake(self, index: int, rng: Rng) -> Expr:
        """A step's result as an operand: on a grid of all its readers, or of this one alone."""
        if not rng.integers(4):
            return self._detour(self.b.fake(self.real(index), _grid(rng)))
        if index not in self.fakes:
            own = np.random.default_rng(self.program[index][1] + 1 if index >= 0 else 0)
            self.fakes[index] = self._detour(self.b.fake(self.real(index), _grid(own)))
        return self.fakes[index]

    def _detour(self, x: Expr) -> Expr:
        """Two transposes that cancel, then two reshapes."""
        if not self.detour:
            return x
        turned = self.b(relax.op.permute_dims(self.b(relax.op.permute_dims(x, [0, 2, 3, 1])), [0, 3, 1, 2]))
        batch = x.ty.shape.values[0]
        return self.b(relax.op.reshape(self.b(relax.op.reshape(turned, (batch, 4, 16))), x.ty.shape))


def random_graph(program: Program, *, detour: bool = False, backward: bool = False) -> IRModule:
    """The module of a program; its outputs are the last two results on grids of their own.

    detour : insert transposes and reshapes that change nothing.
    backward : emit the steps in the order in which the results need them.
    """

    def body(b: Graph, x: Expr) -> tuple[Any, ...]:
        emitter = _Emitter(b, x, program, detour)
        last = len(program) - 1
        for index in () if backward else range(len(program)):
            emitter.real(index)
        params = _grid(np.random.default_rng(7))
        ends = [last, max(last - 1, -1)]
        made = {i: b.quantize(emitter.real(i), params) for i in (reversed(ends) if backward else ends)}
        return tuple(made[i] for i in ends)

    return graph(body, named=True, x=SHAPE)
