"""Sums of products at the ends of 8 bits, for instruction sets that add pairs of products in 16."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels.harness import Case, case
from tests.kernels.linear_cases import conv_case, integers
from tvm_qat.ir import const
from tvm_qat.qnn import build as qnn


def extreme_dense(
    name: str, rows: int, inner: int, outer: int, dtype: str = "int8", *, both: bool = False, zero: int = 3
) -> Case:
    """Weights from -127 on, some channels and some rows all at one end; with -128 in first halves of steps
    only, or in both halves, where -128 * -128 twice leaves 16 bits."""
    rng = np.random.default_rng((rows, inner, outer))
    weights = np.maximum(integers(rng, "int8", outer, inner), -127)
    weights[0], weights[-1], weights[outer // 2] = 127, -127, -127
    weights[-1, np.arange(inner) % 16 < (16 if both else 8)] = -128
    x, info = integers(rng, dtype, rows, inner), np.iinfo(dtype)
    x[0], x[-1] = info.max, info.min

    def graph(data: Any) -> Any:
        return qnn.dense(data, const(weights), zero)

    return case(name, graph, x)


def products() -> list[Case]:
    """Every remainder of a step and of a block, behind as many steps as make pairs pay."""
    return [
        extreme_dense(f"{k} to {n}", 1 + k % 7, k, n, dtype, zero=zero)
        for k, n in zip(range(240, 258), (20, 21, 23, 32, 46, 49) * 3, strict=True)
        for dtype, zero in (("uint8", (0, 255, 131)[k % 3]), ("int8", (-128, 127, 0)[k % 3]))
    ]


def convolutions() -> list[Case]:
    """Borders, rings, strides, dilation, groups, batches. Some have -128 twice in a pair, by chance."""
    rng = np.random.default_rng(2)
    ends = (("uint8", 0), ("uint8", 255), ("int8", 0), ("int8", -128), ("int8", 5))
    shapes: tuple[dict[str, Any], ...] = (
        {"inner": 64, "outer": 20}, {"inner": 32, "outer": 17, "stride": 2}, {"inner": 48, "groups": 2},
        {"inner": 24, "outer": 30, "size": (5, 8)}, {"inner": 80, "dilation": 2, "padding": (2,) * 4},
        {"inner": 128, "kernel": (1, 1), "padding": (0,) * 4, "batch": 3, "outer": 40},
        {"inner": 64, "transposed": True, "stride": 2}, {"inner": 64, "size": (9,), "kernel": (3,)},
    )  # fmt: skip
    return [
        conv_case(f"{shape} {dtype} {zero}", rng, data=dtype, zero=zero, **shape)
        for i, shape in enumerate(shapes)
        for dtype, zero in (ends[i % 5], ends[(i + 2) % 5])
    ]
