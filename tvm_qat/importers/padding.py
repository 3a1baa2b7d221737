"""SAME padding, as TensorFlow and TFLite define it: the output has ceil(size / stride) places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_qat.errors import UnsupportedError


def same_padding(
    sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """[begin..., end...] for windows over spatial `sizes`; an odd padding goes to the end.

    Sizes may be symbolic where the stride is 1: then the padding does not depend on them.
    """
    before, after = [], []
    for size, taps, stride, step in zip(sizes, kernel, strides, dilation, strict=True):
        reach = (taps - 1) * step + 1
        if isinstance(size, int):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        elif stride == 1:
            total = reach - 1
        else:
            raise UnsupportedError("SAME padding with strides needs fixed spatial sizes; give input_shapes")
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after
