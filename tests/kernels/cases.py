"""The cases of every operator of the dialect, by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.kernels import linear_cases, pointwise_cases, reduction_cases
from tests.kernels.harness import Case

CASES: dict[str, Callable[[], list[Case]]] = {
    "qnn.quantize": pointwise_cases.quantize_cases,
    "qnn.dequantize": pointwise_cases.dequantize_cases,
    "qnn.requantize": pointwise_cases.requantize_cases,
    "qnn.fake_quantize": pointwise_cases.fake_quantize_cases,
    "qnn.fake_quantize_range": pointwise_cases.fake_quantize_range_cases,
    "qnn.conv1d": linear_cases.conv1d_cases,
    "qnn.conv2d": linear_cases.conv_cases,
    "qnn.conv3d": linear_cases.conv3d_cases,
    "qnn.conv2d_transpose": linear_cases.transpose_cases,
    "qnn.dense": linear_cases.dense_cases,
    "qnn.batch_matmul": linear_cases.matmul_cases,
    **{
        f"qnn.{name}": partial(pointwise_cases.binary_cases, name)
        for name in ("add", "subtract", "multiply", "divide", "minimum", "maximum")
    },
    "qnn.concatenate": pointwise_cases.concatenate_cases,
    "qnn.avg_pool": reduction_cases.avg_pool_cases,
    "qnn.mean": reduction_cases.mean_cases,
    "qnn.softmax": reduction_cases.softmax_cases,
    "qnn.lut": pointwise_cases.lut_cases,
}
