"""Cases of avg_pool, mean and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels.harness import Case, case
from tests.kernels.linear_cases import integers
from tests.kernels.pointwise_cases import S8, S16, U8
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

OUT = QParams(0.04, 9, "uint8")


def pool_case(
    name: str, *, shape: tuple[int, ...] = (2, 7, 8, 5), layout: str = "NHWC", pool: int = 3, stride: int = 1,
    padding: tuple[int, ...] | None = None, dilation: int = 1, grid: QParams = U8, **options: Any,
) -> Case:  # fmt: skip
    dims = len(shape) - 2
    axis = options.pop("symbolic", None)
    symbolic = () if axis is None else ((0, axis),)
    window = {
        "pool_size": [pool] * dims, "strides": [stride] * dims, "dilation": [dilation] * dims,
        "padding": list(padding or [0] * (2 * dims)), "layout": layout, **options,
    }  # fmt: skip
    x = integers(np.random.default_rng(len(name)), grid.dtype, *shape)
    return case(name, lambda v: qnn.avg_pool(v, grid, OUT, **window), x, symbolic=symbolic)


def avg_pool_cases() -> list[Case]:
    return [
        pool_case("plain"),
        pool_case("NCHW", layout="NCHW", shape=(2, 5, 7, 8), stride=2),
        pool_case("padded", padding=(1, 1, 1, 1), stride=2),
        pool_case("padding counts", padding=(1, 0, 1, 2), count_include_pad=True),
        pool_case("ceil mode", stride=2, ceil_mode=True, pool=2),
        pool_case(
            "ceil mode, padding counts", stride=3, ceil_mode=True, padding=(1,) * 4, count_include_pad=True
        ),
        pool_case(
            "NCHW ceil mode", layout="NCHW", shape=(1, 3, 8, 8), stride=3, ceil_mode=True, padding=(1,) * 4
        ),
        pool_case("dilated", dilation=2, grid=S8),
        pool_case("wide channels", shape=(1, 4, 4, 70)),
        pool_case("16 bits", grid=S16),
        pool_case("one axis", shape=(2, 9, 4), layout="NWC", pool=2),
        pool_case("one axis, NCW", shape=(2, 4, 9), layout="NCW", pool=2, padding=(1, 1)),
        pool_case("three axes", shape=(1, 4, 5, 6, 3), layout="NDHWC", pool=2),
        pool_case("symbolic batch", symbolic=0, padding=(1, 1, 1, 1)),
        pool_case("symbolic rows", symbolic=1, stride=2),
        pool_case("symbolic columns", symbolic=2, shape=(1, 5, 21, 3)),
        pool_case("symbolic channels", symbolic=3),
    ]


def mean_cases() -> list[Case]:
    rng = np.random.default_rng(20)

    def make(shape: tuple[int, ...], axis: list[int], keep: bool, grid: QParams = U8, **options: Any) -> Case:
        x = integers(rng, grid.dtype, *shape)
        return case(f"{shape} over {axis}", lambda v: qnn.mean(v, grid, OUT, axis, keep), x, **options)

    return [
        make((2, 7, 7, 33), [1, 2], False),
        make((2, 5, 7, 7), [2, 3], True),
        make((2, 5, 7), [1], True, S8),
        make((6, 10), [0, 1], False),
        make((6, 10), [0], False, S16),
        make((2, 4, 4, 8), [1, 2], True, symbolic=((0, 0),)),
        make((3, 100), [1], False, QParams(0.001, 5, "int16")),
    ]


def softmax_cases() -> list[Case]:
    rng = np.random.default_rng(21)

    def make(shape: tuple[int, ...], axis: int, grid: QParams = U8, **options: Any) -> Case:
        output = QParams(1 / 256, 0 if grid.dtype == "uint8" else -128, grid.dtype)
        x = integers(rng, grid.dtype, *shape)
        return case(f"{shape} over {axis}", lambda v: qnn.softmax(v, grid, output, axis), x, **options)

    return [make((3, 10), 1), make((2, 9, 4), 1, S8), make((4, 256), 1), make((5, 3), 1, symbolic=((0, 0),))]
