"""Quantization parameters: the one way scale, zero point, range and axis travel together."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError
from tvm_qat.fixed_point import ROUNDINGS

STORAGE_RANGE: dict[str, tuple[int, int]] = {
    f"{sign}int{bits}": ((-(1 << bits - 1), (1 << bits - 1) - 1) if not sign else (0, (1 << bits) - 1))
    for bits, sign in ((8, ""), (8, "u"), (16, ""), (16, "u"), (32, ""))
}
"""Least and greatest value of every integer dtype that stores quantized values."""


@dataclass(frozen=True, eq=False)
class QParams:
    """`real = scale * (q - zero_point)`, per tensor or along one axis.

    Parameters
    ----------
    scale : float64, shape () or (n,); positive, finite in float32 too. One step in real units. Float64,
        so that the product of two float32 scales is kept exactly; arithmetic in float32 rounds it.
    zero_point : int32, shape () or (n,); lies in the range of `dtype`.
    dtype : storage dtype, a key of STORAGE_RANGE.
    axis : the channel axis when scale or zero_point has shape (n,), else None.
    qmin, qmax : least and greatest value in use; default to the whole range of `dtype`.
        Narrower than the dtype for narrow-range and sub-8-bit quantization.

    Raises InputError if any of this does not hold.
    """

    scale: npt.NDArray[np.float64]
    zero_point: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((), np.int32))
    dtype: str = "int8"
    axis: int | None = None
    qmin: int | None = None
    qmax: int | None = None

    def __post_init__(self) -> None:
        scale = _squeeze(np.array(self.scale, np.float64))
        zero_point = _squeeze(np.asarray(self.zero_point))
        if self.dtype not in STORAGE_RANGE:
            raise InputError(f"dtype {self.dtype} cannot store quantized values")
        low, high = STORAGE_RANGE[self.dtype]
        _check_scale(scale)
        _check_zero_point(zero_point, low, high)
        if scale.ndim and zero_point.ndim and scale.size != zero_point.size:
            raise InputError(f"{scale.size} scales but {zero_point.size} zero points")
        per_channel = bool(scale.ndim or zero_point.ndim)
        if per_channel and self.axis is None:
            raise InputError("per-channel parameters need an axis")
        qmin = low if self.qmin is None else _whole("qmin", self.qmin)
        qmax = high if self.qmax is None else _whole("qmax", self.qmax)
        if not low <= qmin < qmax <= high:
            raise InputError(f"range [{qmin}, {qmax}] does not fit {self.dtype}")
        zero_point = zero_point.astype(np.int32)
        for array in (scale, zero_point):
            array.setflags(write=False)
        store = object.__setattr__
        store(self, "scale", scale)
        store(self, "zero_point", zero_point)
        store(self, "axis", _whole("axis", self.axis) if per_channel else None)
        store(self, "qmin", qmin)
        store(self, "qmax", qmax)

    @property
    def range(self) -> tuple[int, int]:
        """(qmin, qmax) as plain integers."""
        assert self.qmin is not None and self.qmax is not None
        return self.qmin, self.qmax

    @property
    def per_channel(self) -> bool:
        return self.axis is not None

    @property
    def channels(self) -> int | None:
        """Length along `axis`, or None per tensor."""
        return max(self.scale.size, self.zero_point.size) if self.per_channel else None

    def with_(self, **changes: object) -> QParams:
        """A copy with some fields changed; checked again."""
        names = ("scale", "zero_point", "dtype", "axis", "qmin", "qmax")
        return QParams(**{**{n: getattr(self, n) for n in names}, **changes})

    def check_axis(self, shape: tuple[object, ...]) -> QParams:
        """Self with a non-negative axis, after checking it against a tensor's shape.

        `shape` may hold symbolic dimensions; only plain integers are compared with the length.
        """
        if self.axis is None:
            return self
        axis = self.axis + len(shape) if self.axis < 0 else self.axis
        if not 0 <= axis < len(shape):
            raise InputError(f"axis {self.axis} is out of range for rank {len(shape)}")
        size = shape[axis]
        if isinstance(size, int) and size != self.channels:
            raise InputError(f"{self.channels} channel parameters for {size} channels on axis {axis}")
        return self.with_(axis=axis)

    def same_grid(self, other: QParams) -> bool:
        """Whether both map integers to reals alike and store them alike (ranges may differ)."""
        return (
            self.dtype == other.dtype
            and self.axis == other.axis
            and self.channels == other.channels
            and bool(np.all(self.scale == other.scale))
            and bool(np.all(self.zero_point == other.zero_point))
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QParams) and self.same_grid(other) and self.range == other.range

    def __hash__(self) -> int:
        count = self.channels or 1
        columns = (np.broadcast_to(part, (count,)).tobytes() for part in (self.scale, self.zero_point))
        return hash((*columns, self.dtype, self.axis, self.range))

    def to_json(self) -> dict[str, object]:
        """Plain lists and numbers, for meta.json and reports."""
        return {
            "scale": self.scale.tolist(),
            "zero_point": self.zero_point.tolist(),
            "dtype": self.dtype,
            "axis": self.axis,
            "qmin": self.qmin,
            "qmax": self.qmax,
        }


def _squeeze(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Exporters write per-tensor parameters as shape [1]; make them scalars."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim != 1:
        raise InputError(f"parameters must be a scalar or one-dimensional, not of shape {values.shape}")
    return values


def _whole(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} {value} is not an integer") from None


def _check_scale(scale: npt.NDArray[np.generic]) -> None:
    if scale.size == 0:
        raise InputError("scale is empty")
    values = scale.astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise InputError(f"scale {values[~np.isfinite(values)].flat[0]} is not finite")
    if not np.all(values > 0):
        raise InputError(f"scale {values[values <= 0].flat[0]:g} is not positive")
    if not np.all(values <= np.finfo(np.float32).max):
        raise InputError(f"scale {values.max():g} is beyond float32")


def _check_zero_point(zero_point: npt.NDArray[np.generic], low: int, high: int) -> None:
    if zero_point.size == 0:
        raise InputError("zero point is empty")
    if not np.issubdtype(zero_point.dtype, np.integer):
        raise InputError(f"zero point has dtype {zero_point.dtype}, not an integer")
    values: list[int] = zero_point.ravel().tolist()  # uint64 does not fit any other integer type
    outside = [value for value in values if not low <= value <= high]
    if outside:
        raise InputError(f"zero point {outside[0]} is outside [{low}, {high}]")


def nudged_range(
    minimum: npt.ArrayLike, maximum: npt.ArrayLike, *, bits: int = 8, signed: bool = False,
    narrow_range: bool = False, axis: int | None = None,
) -> QParams:  # fmt: skip
    """Scale and zero point of a trained range, nudged so that zero lies on the grid.

    TensorFlow's FakeQuantWithMinMaxVars: scale = (max - min) / (levels - 1), the zero point is
    qmin - min / scale in float32, rounded half away from zero and clamped to the range. A range
    beside zero is moved until it touches zero. The difference is rounded to float32, the quotient
    is not: rounded later it is TensorFlow's scale, and its reciprocal TensorFlow's inverse.
    minimum, maximum: float32 scalars or (n,); minimum < maximum, else InputError.
    """
    low, high = np.asarray(minimum, np.float32), np.asarray(maximum, np.float32)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(low < high)):
        raise InputError(f"range [{low}, {high}] is empty or not finite")
    qmin = -(1 << bits - 1) if signed else 0
    qmax = qmin + (1 << bits) - 1
    qmin += int(narrow_range)
    with np.errstate(over="ignore"):
        scale = (high - low).astype(np.float32).astype(np.float64) / (qmax - qmin)
        rounded = scale.astype(np.float32)
    _check_scale(rounded)
    with np.errstate(over="ignore"):
        exact = (np.float32(qmin) - (low / rounded).astype(np.float32)).astype(np.float32)
    zero_point = ROUNDINGS["half_away"](np.clip(exact, np.float32(qmin), np.float32(qmax)))
    storage = ("" if signed else "u") + f"int{8 if bits <= 8 else 16}"
    return QParams(scale, zero_point.astype(np.int32), storage, axis, qmin, qmax)
