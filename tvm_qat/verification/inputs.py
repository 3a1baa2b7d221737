"""Data for a model: given arrays cut into inputs of the model's size, or drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, located
from tvm_qat.ir import Function, IRModule, Var, op_name, shape_of, uses_of
from tvm_qat.package import TensorInfo

Array = npt.NDArray[Any]

_MOST_AT_ONCE = 8
"""Samples in one run of a model whose batch is open."""

_FOLLOWED = frozenset(["relax.astype", "relax.reshape", "relax.expand_dims", "relax.squeeze"])


def cut(data: Mapping[str, Any], infos: Sequence[TensorInfo]) -> list[dict[str, Array]]:
    """`data` as inputs of the model, one after the other.

    data : by input name; the leading dimension of each array is a multiple of the model's, the same
    multiple for all. An array of just the model's shape is used each time. Raises InputError otherwise.
    """
    arrays = {info.name: _array(data, info) for info in infos}
    unknown = [name for name in data if name not in arrays]
    if unknown:
        names = ", ".join(arrays)
        raise InputError(located(f"the model has no input {unknown[0]!r}", remedy=f"its inputs are {names}"))
    sizes = {info.name: _leading(info, arrays[info.name], arrays.values()) for info in infos}
    counts = {name: len(arrays[name]) // size for name, size in sizes.items() if size}
    runs = max(counts.values(), default=1)
    uneven = [name for name, count in counts.items() if count not in (1, runs)]
    if uneven or not runs:
        raise InputError(f"inputs hold different numbers of samples: {counts}")

    def part(name: str, run: int) -> Array:
        size = sizes[name]
        if not size or counts[name] == 1:
            return arrays[name]
        return np.ascontiguousarray(arrays[name][run * size : (run + 1) * size])

    return [{info.name: part(info.name, run) for info in infos} for run in range(runs)]


def _array(data: Mapping[str, Any], info: TensorInfo) -> Array:
    if info.name not in data:
        if info.initial is None:
            raise InputError(f"no data for input {info.name!r}")
        return np.full([size for size in info.shape if isinstance(size, int)], info.initial, info.dtype)
    array = np.asarray(data[info.name])
    rest = zip(array.shape[1:], info.shape[1:], strict=False)
    fits = array.ndim == len(info.shape) and all(isinstance(b, str) or a == b for a, b in rest)
    if not fits or str(array.dtype) != info.dtype:
        given = f"[{', '.join(map(str, array.shape))}] {array.dtype}"
        wanted = f"[{', '.join(map(str, info.shape))}] {info.dtype}"
        remedy = f"it takes {wanted}, or several of these along the first dimension"
        raise InputError(located(f"input {info.name!r}: got {given}", remedy=remedy))
    return array


def _leading(info: TensorInfo, array: Array, others: Any) -> int:
    """Samples in one run; 0 where there is no leading dimension."""
    if not info.shape:
        return 0
    size = info.shape[0]
    if isinstance(size, str):
        count = max((len(other) for other in others if other.ndim), default=1)
        size = max(n for n in range(1, _MOST_AT_ONCE + 1) if count % n == 0)
        size = min(size, len(array))
    if not size or not len(array) or len(array) % size:
        reason = f"input {info.name!r}: got {len(array)} samples"
        raise InputError(located(reason, remedy=f"the model takes {size} at a time"))
    return size


def drawn(mod: IRModule, infos: Sequence[TensorInfo], samples: int, seed: int) -> dict[str, Array]:
    """Random inputs for at least `samples` samples.

    Floats are drawn from the range that the input is quantized to, or from a normal distribution;
    integers from the range of the table that they are an index of, else from their grid or 0 and 1.
    """
    rng = np.random.default_rng(seed)
    main = mod["main"]
    batches = [info.shape[0] for info in infos if info.shape and info.initial is None]
    batch = next((size for size in batches if isinstance(size, int)), 1)
    runs = -(-samples // batch)
    made = {}
    for info, param in zip(infos, main.params, strict=True):
        if info.initial is not None:
            continue
        fixed = [size if isinstance(size, int) else 1 for size in info.shape]
        shape = [fixed[0] * runs, *fixed[1:]] if fixed else []
        made[info.name] = _draw(rng, info, shape, _index_limit(main, param))
    return made


def _draw(rng: np.random.Generator, info: TensorInfo, shape: list[int], limit: int | None) -> Array:
    dtype, grid = np.dtype(info.dtype), info.qparams
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        least, most = (0, limit - 1) if limit else grid.range if grid is not None else (0, 1)
        return rng.integers(least, most, shape, endpoint=True).astype(dtype)
    if grid is None:
        return rng.standard_normal(shape).astype(dtype)
    low, high = (float(grid.scale) * (end - int(grid.zero_point)) for end in grid.range)
    return np.asarray(rng.uniform(low, high, shape), dtype)


def _index_limit(func: Function, var: Var) -> int | None:
    """Entries of the smallest table that `var` is an index of."""
    limits = []
    for user, call in uses_of(func).get(var, ()):
        if op_name(call) == "relax.take" and call.args[1].same_as(var):
            axis = call.attrs.axis
            shape = shape_of(call.args[0]) or ()
            size = shape[int(axis)] if axis is not None and shape else None
            limits += [size] if isinstance(size, int) else []
        elif op_name(call) in _FOLLOWED and user is not None:
            inner = _index_limit(func, user)
            limits += [inner] if inner is not None else []
    return min(limits, default=None)
