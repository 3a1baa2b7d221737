"""Numbers as Relay writes them: `3` int32, `3i64`, `0.5f` float32, `0.5f64`, `1e-05f`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.importers.relay.lexer import Token, fault

_LONGEST = 400


def array_of_number(token: Token, sign: str) -> npt.NDArray[Any]:
    """A scalar constant of the dtype that the suffix names."""
    value, dtype = _read(token, sign)
    if isinstance(value, int):
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            dtype = "int64"
        if not -(1 << 63) <= value < 1 << 63:
            raise fault(f"{token.text} does not fit 64 bits", token)
    with np.errstate(over="ignore"):
        return np.asarray(value, dtype)


def plain_number(token: Token, sign: str) -> int | float:
    """The same as a Python number, for attributes."""
    return _read(token, sign)[0]


def _read(token: Token, sign: str) -> tuple[int | float, str]:
    digits, suffix = _split(token.text)
    widths = {"": "32", "32": "32", "64": "64", "16": "16"}
    is_float = suffix[:1] == "f" or (not suffix and any(c in digits for c in ".eE"))
    width = widths.get(suffix[1:])
    if width is None or suffix[:1] not in ("", "f", "i") or len(token.text) > _LONGEST:
        raise fault(f"{token.text[:40]!r} is not a number", token)
    try:
        number = float(sign + digits) if is_float else int(sign + digits)
    except ValueError:
        raise fault(f"{token.text[:40]!r} is not a number", token) from None
    return number, f"{'float' if is_float else 'int'}{width}"


def _split(text: str) -> tuple[str, str]:
    """Digits (with point and exponent) and suffix (`f`, `f64`, `i64`)."""
    for at, character in enumerate(text):
        if character in "fiu":
            return text[:at], text[at:]
    return text, ""
