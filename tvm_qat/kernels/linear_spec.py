"""One description for all sums of products: convolutions, transposed ones, dense, matmul.

Everything is seen as a convolution over three axes D, H, W with channels inside groups:

    out[n, d, h, w, g, o] = sum over kd, kh, kw, i of
        (x[n, d*sd + kd*dd - pd, ..., g, i] - x_zero) * (weight[g, o, kd, kh, kw, i] - w_zero)

A transposed convolution is the same with zeros (the zero point) put between the pixels
(`Axis.spread`), the kernel mirrored and the padding turned inside out. Dense and matmul have one
axis, W, of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Expr, Shape, attrs_of, op_name, shape_of, source_of


@dataclass(frozen=True)
class Axis:
    """One spatial axis. `spread` - 1 zeros stand between neighbours; negative padding cuts."""

    size: Any = 1
    out: Any = 1
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    spread: int = 1

    @property
    def padded(self) -> Any:
        return (self.size - 1) * self.spread + 1 + self.before + self.after

    @property
    def needs_padding(self) -> bool:
        return bool(self.before or self.after or self.spread > 1)

    @property
    def is_plain(self) -> bool:
        return self.kernel == 1 and self.stride == 1 and not self.needs_padding


@dataclass(frozen=True)
class LinearSpec:
    """inner, outer : input and output channels of one group. axes : D, H, W.

    data_layout, kernel_layout : letters of the real tensors' axes. mirrored : the kernel is read
    backwards (transposed convolution).
    """

    batch: Any
    axes: tuple[Axis, Axis, Axis]
    groups: int
    inner: int
    outer: int
    data_layout: str
    kernel_layout: str
    mirrored: bool = False

    @property
    def of_padded(self) -> LinearSpec:
        """The same sums, seen from a copy that holds the padding."""
        depth, height, width = (replace(a, size=a.padded, before=0, after=0, spread=1) for a in self.axes)
        return replace(self, axes=(depth, height, width))

    @property
    def channels_last(self) -> bool:
        return self.data_layout.endswith("C")

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.inner == 1 and self.outer == 1

    @property
    def kernel(self) -> tuple[int, int, int]:
        d, h, w = self.axes
        return d.kernel, h.kernel, w.kernel

    @property
    def needs_padding(self) -> bool:
        return any(axis.needs_padding for axis in self.axes)

    @property
    def merges_columns(self) -> bool:
        """Whether the columns of the kernel read one run of neighbouring elements."""
        width = self.axes[2]
        return self.groups == 1 and (width.dilation == 1 or width.kernel == 1)

    @property
    def run(self) -> int:
        """Neighbouring elements that one tap adds up."""
        return self.inner * (self.axes[2].kernel if self.merges_columns else 1)

    @property
    def is_plain(self) -> bool:
        """Whether every output pixel reads just its own input pixel."""
        return self.groups == 1 and all(axis.is_plain for axis in self.axes)


def conv_spec(call: Expr, data_shape: Shape, out_shape: Shape) -> LinearSpec:
    """From qnn.conv1d, conv2d, conv3d or conv2d_transpose; shapes in the kernel's own variables."""
    attrs = attrs_of(call)
    layout, kernel_layout = str(attrs["data_layout"]), str(attrs["kernel_layout"])
    data, out = (dict(zip(layout, shape, strict=True)) for shape in (data_shape, out_shape))
    weight = dict(zip(kernel_layout, shape_of(call.args[1]) or (), strict=True))
    transposed = op_name(call) == "qnn.conv2d_transpose"
    groups = int(attrs["groups"])
    spatial = [letter for letter in "DHW" if letter in layout]
    make = _transposed_axis if transposed else _axis
    axes = {
        letter: make(attrs, i, len(spatial), data[letter], out[letter], weight[letter])
        for i, letter in enumerate(spatial)
    }
    _require_static(call, [data["C"], *weight.values()])
    return LinearSpec(
        batch=data["N"],
        axes=(axes.get("D", Axis()), axes.get("H", Axis()), axes["W"]),
        groups=groups,
        inner=data["C"] // groups,
        outer=weight["O"] if transposed else weight["O"] // groups,
        data_layout=layout,
        kernel_layout=kernel_layout,
        mirrored=transposed,
    )


def _axis(attrs: dict[str, Any], i: int, count: int, size: Any, out: Any, kernel: int) -> Axis:
    padding = attrs["padding"]
    return Axis(size, out, kernel, attrs["strides"][i], attrs["dilation"][i], padding[i], padding[i + count])


def _transposed_axis(attrs: dict[str, Any], i: int, count: int, size: Any, out: Any, kernel: int) -> Axis:
    padding, dilation = attrs["padding"], attrs["dilation"][i]
    reach = (kernel - 1) * dilation
    before, after = reach - padding[i], reach - padding[i + count] + attrs["output_padding"][i]
    return Axis(size, out, kernel, 1, dilation, before, after, attrs["strides"][i])


def rows_spec(rows: Any, inner: int, outer: int, kernel_layout: str) -> LinearSpec:
    """A product of a [rows, inner] matrix with a weight that is [outer, inner] ("OI") or "IO"."""
    return LinearSpec(1, (Axis(), Axis(), Axis(rows, rows)), 1, inner, outer, "WC", kernel_layout)


def _require_static(call: Expr, sizes: Any) -> None:
    if not all(isinstance(size, int) for size in sizes):
        reason = f"{op_name(call)} needs channels and kernel sizes known at compile time"
        raise UnsupportedError(located(reason, node=source_of(call)))
