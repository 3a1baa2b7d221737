"""Kernels that add no products, drawn by a seed: every length, zero points at the ends of their range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.kernels.drawn_cases import Rng, drawn_window
from tests.kernels.harness import Array, Case, case
from tests.kernels.linear_cases import integers
from tvm_qat.ir import Expr, relax
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import STORAGE_RANGE, QParams

Drawn = tuple[Callable[..., Any], list[Array]]


def drawn_others(seed: int) -> list[Case]:
    """One case of each kind for some lengths, so that all lengths from 1 to 33 occur, and longer ones."""
    kinds, found = list(_KINDS), []
    for i in range(1, 40):
        name = kinds[(i + seed) % len(kinds)]
        length = i if i < 34 else int(np.random.default_rng((seed, i)).integers(34, 200))
        graph, inputs = _KINDS[name](np.random.default_rng((seed, i)), length)
        found.append(
            case(f"seed {seed} {name} {length}", graph, *inputs, composite=isinstance(graph, _Chain))
        )
    return found


def grid(rng: Rng, dtypes: tuple[str, ...] = ("uint8", "int8")) -> QParams:
    dtype = str(rng.choice(dtypes))
    low, high = STORAGE_RANGE[dtype]
    zero = int(rng.choice([low, high, 0, rng.integers(low, high)]))
    return QParams(np.array(float(rng.choice([0.25, 0.5, rng.uniform(0.1, 0.9)]))), np.array(zero), dtype)


class _Chain:
    """Steps of one kernel."""

    def __init__(self, *steps: Callable[[Expr], Expr]) -> None:
        self.steps = steps

    def __call__(self, value: Expr) -> list[Any]:
        first, *rest = self.steps
        return [first(value), *rest]


def _chain(rng: Rng, length: int) -> Drawn:
    """Requantize, look up, requantize, clip."""
    a, b, c = (grid(rng) for _ in range(3))
    table = integers(rng, c.dtype, 256)
    low, high = STORAGE_RANGE[a.dtype]
    bounds = relax.prim_value(low + 3), relax.prim_value(high - 5)
    steps = _Chain(
        lambda v: qnn.requantize(v, a, b), lambda v: qnn.lut(v, table), lambda v: qnn.requantize(v, c, a),
        lambda v: relax.op.clip(v, *bounds),
    )  # fmt: skip
    return steps, [integers(rng, a.dtype, 3, length)]


def _binary(rng: Rng, length: int) -> Drawn:
    name = str(rng.choice(["add", "subtract", "multiply", "divide", "minimum", "maximum"]))
    lhs, rhs, out = grid(rng, ("uint8", "int8", "int16")), grid(rng), grid(rng)
    right = (length,) if rng.random() < 0.5 else (3, length)
    data = [integers(rng, lhs.dtype, 3, length), integers(rng, rhs.dtype, *right)]
    return lambda x, y: qnn.elementwise(name, x, y, lhs, rhs, out), data


def _channels(rng: Rng, length: int) -> Drawn:
    """Parameters of each channel, from int32 at its ends."""
    source = QParams(2.0 ** rng.uniform(-20, 0, length), 0, "int32", axis=1)
    rounding = str(rng.choice(["half_even", "tflite", "tflite_single", "single_away"]))
    x, target = integers(rng, "int32", 4, length), grid(rng)
    return lambda v: qnn.requantize(v, source, target, rounding), [x]


def _concatenate(rng: Rng, length: int) -> Drawn:
    grids, out = [grid(rng) for _ in range(3)], grid(rng)
    if rng.random() < 0.4:
        grids[0] = out
    axis = int(rng.integers(0, 3))
    shapes = [[2, 3, length] for _ in grids]
    for shape, size in zip(shapes, (length, 1, 17), strict=True):
        shape[axis] = size
    data = [integers(rng, g.dtype, *shape) for g, shape in zip(grids, shapes, strict=True)]
    return lambda *v: qnn.concatenate(v, grids, out, axis), data


def _pool(rng: Rng, length: int) -> dict[str, Any]:
    kernel, attrs, image = drawn_window(rng, 2, 4)
    most = max(int(k) for k in kernel) - 1
    attrs["padding"] = [min(int(p), most) for p in attrs["padding"]]
    return {"pool_size": list(kernel), "layout": "NHWC", **attrs, "image": (2, *image, length)}


def _average(rng: Rng, length: int) -> Drawn:
    source, out, options = grid(rng, ("uint8", "int8", "int16")), grid(rng), _pool(rng, length)
    x = integers(rng, source.dtype, *options.pop("image"))
    options |= {"count_include_pad": bool(rng.random() < 0.3), "ceil_mode": bool(rng.random() < 0.3)}
    return lambda v: qnn.avg_pool(v, source, out, **options), [x]


def _mean(rng: Rng, length: int) -> Drawn:
    """Few addends, and more than 16 bits hold."""
    source, out, rows = grid(rng, ("uint8", "int8", "int16")), grid(rng), int(rng.choice([2, 16, 17]))
    x = integers(rng, source.dtype, 2, rows, 16, length)
    x[0] = np.iinfo(source.dtype).max
    return lambda v: qnn.mean(v, source, out, [1, 2], False), [x]


def _greatest(rng: Rng, length: int) -> Drawn:
    options = _pool(rng, length)
    x = integers(rng, str(rng.choice(["uint8", "int8", "int16"])), *options["image"])
    size, strides, padding = (tuple(options[key]) for key in ("pool_size", "strides", "padding"))
    padding = tuple(min(p, size[i % 2] - 1) for i, p in enumerate(padding))
    return _Chain(lambda v: relax.op.nn.max_pool2d(v, size, strides, padding, layout="NHWC")), [x]


def _softmax(rng: Rng, length: int) -> Drawn:
    source = grid(rng)
    out = QParams(np.array(1 / 256), np.array(STORAGE_RANGE[source.dtype][0]), source.dtype)
    return lambda v: qnn.softmax(v, source, out, 1), [integers(rng, source.dtype, 3, length)]


_KINDS: dict[str, Callable[[Rng, int], Drawn]] = {
    "chain": _chain, "average": _average, "binary": _binary, "greatest": _greatest, "channels": _channels,
    "mean": _mean, "concatenate": _concatenate, "softmax": _softmax,
}  # fmt: skip
