"""Cases of the operators that multiply and accumulate."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels.harness import Array, Case, case
from tvm_qat.ir import Expr, const
from tvm_qat.qnn import build as qnn

_CONV_LAYOUTS = {1: ("NWC", "OWI"), 2: ("NHWC", "OHWI"), 3: ("NDHWC", "ODHWI")}


def integers(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    """Random over the whole range, both ends included."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values.reshape(-1)[: min(2, values.size)] = (info.min, info.max)[: min(2, values.size)]
    return values


def conv_case(
    name: str, rng: np.random.Generator, *, size: tuple[int, ...] = (6, 7), inner: int = 3, outer: int = 5,
    kernel: tuple[int, ...] = (3, 3), stride: int = 1, dilation: int = 1,
    padding: tuple[int, ...] | None = None, groups: int = 1, batch: int = 1, data: str = "uint8",
    weight: str = "int8", zero: Any = 3, kernel_zero: Any = 0,
    layouts: tuple[str, str] | None = None, symbolic: bool | str = False,
    transposed: bool = False, output_padding: int = 0, run_time: bool = False,
) -> Case:  # fmt: skip
    """One convolution; inner and outer are channels of one group."""
    dims = len(size)
    data_layout, kernel_layout = layouts or _CONV_LAYOUTS[dims]
    if transposed and layouts is None:
        kernel_layout = "IHWO"
    spatial = "DHW"[3 - dims :]
    sizes = {"N": batch, "C": inner * groups} | dict(zip(spatial, size, strict=True))
    kernels = {"O": outer if transposed else outer * groups, "I": inner * groups if transposed else inner}
    kernels |= dict(zip(spatial, kernel, strict=True))
    x = integers(rng, data, *(sizes[c] for c in data_layout))
    w = integers(rng, weight, *(kernels[c] for c in kernel_layout))
    attrs: dict[str, Any] = {
        "strides": [stride] * dims, "padding": list(padding or [1] * (2 * dims)),
        "dilation": [dilation] * dims, "groups": groups, "data_layout": data_layout,
        "kernel_layout": kernel_layout,
    }  # fmt: skip
    if transposed:
        attrs["output_padding"] = [output_padding] * dims
    build = qnn.conv2d_transpose if transposed else qnn.conv
    if kernel_zero is None:
        kernel_zero = rng.integers(-3, 4, kernels["O"])

    def graph(x: Expr, w_or_zero: Expr | None = None) -> Expr:
        weights = w_or_zero if run_time else const(w)
        return build(x, weights, zero if zero is not None else w_or_zero, kernel_zero, **attrs)

    inputs = [x, *([w] if run_time else []), *([np.int32(7).reshape(())] if zero is None else [])]
    axis = data_layout.index(symbolic if isinstance(symbolic, str) else "N")
    return case(name, graph, *inputs, symbolic=((0, axis),) if symbolic else ())


def conv_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    plain = [
        conv_case("1x1", rng, kernel=(1, 1), padding=(0, 0, 0, 0), inner=17, outer=33),
        conv_case("1x1 padded", rng, kernel=(1, 1), padding=(1, 0, 2, 1), inner=4, outer=64),
        conv_case("1x1 strided", rng, kernel=(1, 1), padding=(0, 0, 0, 0), stride=2, inner=8, outer=16),
        conv_case("stem", rng, size=(13, 13), kernel=(7, 7), padding=(3, 3, 3, 3), stride=2, outer=64),
        conv_case("uneven padding", rng, padding=(0, 1, 2, 3), outer=40),
        conv_case("no padding", rng, padding=(0, 0, 0, 0), outer=8),
        conv_case("dilated", rng, dilation=2, padding=(2, 2, 2, 2), outer=7),
        conv_case("strided, dilated", rng, size=(9, 9), stride=2, dilation=2, inner=5),
        conv_case("even kernel", rng, kernel=(2, 4), padding=(0, 1, 1, 2)),
        conv_case("batch", rng, batch=3, outer=12),
        conv_case("symbolic batch", rng, batch=2, symbolic=True),
        conv_case("symbolic batch 1x1", rng, batch=3, symbolic=True, kernel=(1, 1), padding=(0,) * 4),
        conv_case("symbolic rows", rng, symbolic="H", stride=2, outer=9),
        conv_case("symbolic columns", rng, size=(3, 23), symbolic="W", outer=9),
        conv_case("symbolic columns 1x1", rng, symbolic="W", kernel=(1, 1), padding=(0,) * 4, stride=2),
        conv_case("wide row", rng, size=(2, 37), outer=64, inner=2),
        conv_case("one pixel", rng, size=(1, 1), outer=96, inner=9),
        conv_case("NCHW", rng, layouts=("NCHW", "OIHW"), batch=2, outer=9),
        conv_case("NCHW groups", rng, layouts=("NCHW", "OIHW"), groups=3, inner=2, outer=2),
        conv_case("NCHW depthwise", rng, layouts=("NCHW", "OIHW"), groups=6, inner=1, outer=1),
        conv_case("NHWC with HWIO", rng, layouts=("NHWC", "HWIO"), outer=20),
    ]
    grouped = [
        conv_case("groups", rng, groups=4, inner=3, outer=5),
        conv_case("wide groups", rng, groups=2, inner=8, outer=40),
        conv_case("groups 1x1", rng, groups=3, inner=4, outer=2, kernel=(1, 1), padding=(0,) * 4),
        conv_case("depth multiplier", rng, groups=5, inner=1, outer=3),
        *(conv_case(f"depthwise {c}", rng, groups=c, inner=1, outer=1) for c in (2, 16, 19, 64, 100)),
        conv_case("depthwise, symbolic columns", rng, groups=16, inner=1, outer=1, symbolic="W"),
        conv_case("depthwise strided", rng, groups=24, inner=1, outer=1, stride=2, zero=0),
        conv_case("depthwise dilated", rng, groups=8, inner=1, outer=1, dilation=2, kernel_zero=None),
    ]
    zeros = [
        conv_case("s8 at its ends", rng, data="int8", zero=-128),
        conv_case("u8 at its ends", rng, data="uint8", zero=255, kernel_zero=None),
        conv_case("u8 weights", rng, weight="uint8", kernel_zero=128),
        conv_case(
            "u8 weights, zero point 255", rng, weight="uint8", kernel_zero=255, groups=3, inner=1, outer=1
        ),
        conv_case("int16 data", rng, data="int16", zero=0, inner=2, kernel=(1, 1), padding=(0,) * 4),
        conv_case(
            "uint16 data", rng, data="uint16", zero=32768, inner=1, kernel=(2, 1), padding=(1, 0, 0, 0)
        ),
        conv_case("zero point at run time", rng, zero=None),
        conv_case("zero point at run time, 1x1", rng, zero=None, kernel=(1, 1), padding=(0,) * 4),
        conv_case("depthwise, zero point at run time", rng, zero=None, groups=9, inner=1, outer=1),
        conv_case("weights at run time", rng, run_time=True, kernel_zero=5, outer=35),
        conv_case("weights at run time, groups", rng, run_time=True, groups=2, layouts=("NCHW", "OIHW")),
        conv_case("weights at run time, 1x1", rng, run_time=True, kernel=(1, 1), padding=(0,) * 4),
    ]
    sizes = [
        conv_case(f"{i} to {o} channels", rng, inner=i, outer=o, size=(3, s))
        for i, o, s in zip(range(1, 34, 4), range(33, 0, -4), range(1, 33, 4), strict=False)
    ]
    return plain + grouped + zeros + sizes


def conv1d_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    return [
        conv_case("NWC", rng, size=(11,), kernel=(3,), outer=17),
        conv_case("NCW", rng, size=(11,), kernel=(3,), layouts=("NCW", "OIW"), batch=2, stride=2),
        conv_case("pointwise", rng, size=(9,), kernel=(1,), padding=(0, 0), symbolic=True, batch=2),
    ]


def conv3d_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    return [
        conv_case("NDHWC", rng, size=(3, 4, 5), kernel=(2, 3, 3), outer=6, batch=2),
        conv_case("NCDHW", rng, size=(3, 4, 5), kernel=(3, 1, 2), layouts=("NCDHW", "OIDHW"), stride=2),
        conv_case("depthwise", rng, size=(3, 4, 5), kernel=(3, 3, 3), groups=7, inner=1, outer=1),
    ]


def transpose_cases() -> list[Case]:
    rng = np.random.default_rng(4)
    make: dict[str, Any] = {"transposed": True, "rng": rng}
    return [
        conv_case("stride 1", **make),
        conv_case("stride 2", **make, stride=2, output_padding=1, outer=9),
        conv_case("stride 3, no padding", **make, stride=3, padding=(0, 0, 0, 0), kernel=(2, 2)),
        conv_case("cut border", **make, padding=(3, 3, 3, 3), stride=2),
        conv_case("uneven padding", **make, padding=(0, 1, 2, 0), stride=2, batch=2, symbolic=True),
        conv_case("dilated", **make, dilation=2, stride=2),
        conv_case("symbolic rows", **make, symbolic="H", stride=2, kernel=(2, 2), padding=(0,) * 4),
        conv_case("symbolic columns", **make, symbolic="W", stride=2),
        conv_case("groups", **make, groups=3, inner=2, outer=4, stride=2),
        conv_case("depthwise", **make, groups=6, inner=1, outer=1, stride=2),
        conv_case("groups, zero points", **make, groups=2, inner=2, outer=3, kernel_zero=None),
        conv_case("NCHW", **make, layouts=("NCHW", "IOHW"), stride=2, zero=255),
        conv_case("weights at run time", **make, run_time=True, stride=2, kernel_zero=3),
    ]


def dense_cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def make(
        rows: tuple[int, ...], k: int, n: int, zero: Any = 3, kernel_zero: Any = 0, **options: Any
    ) -> Case:
        x, w = integers(rng, "uint8", *rows, k), integers(rng, options.pop("weight", "int8"), n, k)
        name = f"{rows} x {k} x {n}, zero points {zero}, {np.shape(kernel_zero) or kernel_zero}"
        return case(name, lambda x: qnn.dense(x, const(w), zero, kernel_zero), x, **options)

    w = integers(rng, "int8", 35, 20)
    return [
        make((1,), 64, 10),
        make((7,), 33, 65, zero=255),
        make((2, 5), 16, 96, kernel_zero=rng.integers(-5, 5, 96)),
        make((5,), 9, 3, symbolic=((0, 0),)),
        make((2, 13), 9, 40, symbolic=((0, 0),)),
        make((), 12, 20),
        make((4,), 128, 64, weight="uint8", kernel_zero=200),
        *(make((k,), k, 34 - k) for k in range(1, 34, 5)),
        case(
            "columns unknown", lambda x, y: qnn.dense(x, y, 3, 1), integers(rng, "uint8", 4, 20), w,
            symbolic=((1, 0),),
        ),
        case("both at run time", lambda x, y: qnn.dense(x, y, 3, 1), integers(rng, "uint8", 4, 20), w),
        case(
            "zero point at run time", lambda x, z: qnn.dense(x, const(w), z, 2),
            integers(rng, "uint8", 4, 20), np.array(9, np.int32),
        ),
        case(
            "zero point of shape [1]", lambda x, z: qnn.dense(x, const(w), z, 0),
            integers(rng, "int8", 4, 20), np.array([-9], np.int32),
        ),
    ]  # fmt: skip


def matmul_cases() -> list[Case]:
    rng = np.random.default_rng(6)

    def make(x: tuple[int, ...], y: tuple[int, ...], zeros: tuple[int, int] = (0, 0), **options: Any) -> Case:
        left, right = integers(rng, "uint8", *x), integers(rng, options.pop("dtype", "int8"), *y)
        fixed = options.pop("fixed", False)
        if fixed:
            return case(f"{x} x constant {y}", lambda a: qnn.batch_matmul(a, const(right), *zeros), left)
        return case(f"{x} x {y}", lambda a, b: qnn.batch_matmul(a, b, *zeros), left, right, **options)

    return [
        make((4, 7), (7, 9)),
        make((2, 3, 4, 7), (2, 3, 7, 33), (3, -5)),
        make((2, 3, 4, 7), (7, 9), (128, 0)),
        make((4, 7), (2, 7, 9), (0, 128), dtype="uint8"),
        make((2, 1, 4, 7), (3, 7, 9)),
        make((3, 5, 16), (3, 16, 70), symbolic=((0, 0), (1, 0))),
        make((3, 5, 16), (3, 16, 8), symbolic=((0, 1),)),
        make((2, 3, 5, 21), (2, 3, 21, 8), (3, 1), symbolic=((0, 3), (1, 2))),
        make((2, 3, 5, 8), (2, 3, 8, 37), (0, 7), symbolic=((1, 3),)),
        make((3, 21, 8), (8, 21), (255, -128), symbolic=((0, 1), (1, 1))),
        make((3, 21, 21), (3, 21, 9), symbolic=((0, 1), (0, 2), (1, 1))),
        make((3, 5, 16), (16, 8), (5, 1), fixed=True),
        make((3, 5, 16), (3, 16, 8), (5, 1), fixed=True),
        *(make((2, m, 34 - m), (2, 34 - m, m), (1, 2)) for m in range(1, 34, 8)),
    ]
