"""Plots as SVG text, without any plotting package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

_FONT = 'font-family="sans-serif" font-size="13"'
_OURS, _THEIRS, _LIMIT = "#1f6f8b", "#b9c3c9", "#c0392b"
_LEFT, _WIDTH, _ROW = 260, 420, 24


@dataclass(frozen=True)
class Bar:
    """low, high : quartiles, drawn as a whisker. limit : a mark that the bar should not pass."""

    label: str
    value: float
    text: str
    ours: bool = False
    low: float | None = None
    high: float | None = None
    limit: float | None = None


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with its figure."""
    longest = max([*(max(row.value, row.high or 0.0, row.limit or 0.0) for row in rows), 1e-12])
    parts = [_text(12, 24, title, bold=True)]
    for place, row in enumerate(rows):
        parts += _bar(row, 40 + place * _ROW, _WIDTH / longest)
    return _document(_LEFT + _WIDTH + 150, 52 + len(rows) * _ROW, parts)


def _bar(row: Bar, top: float, scale: float) -> list[str]:
    middle = top + _ROW / 2
    color = _OURS if row.ours else _THEIRS
    parts = [
        _text(_LEFT - 8, middle + 4, row.label, anchor="end"),
        f'<rect x="{_LEFT}" y="{top + 3:.1f}" width="{row.value * scale:.1f}" height="{_ROW - 6}"'
        f' fill="{color}"/>',
    ]
    if row.low is not None and row.high is not None:
        parts.append(_line(_LEFT + row.low * scale, middle, _LEFT + row.high * scale, middle, "#222"))
    if row.limit is not None:
        x = _LEFT + row.limit * scale
        parts.append(_line(x, top + 1, x, top + _ROW - 1, _LIMIT))
    end = _LEFT + max(row.value, row.high or 0.0, row.limit or 0.0) * scale
    parts.append(_text(end + 8, middle + 4, row.text))
    return parts


def points(
    title: str, x_label: str, y_label: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    line: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Points over both axes from zero. line : (slope, offset) of a line to draw through them."""
    width, height, left, top = 620, 380, 80, 44
    every = [point for _, found in series for point in found]
    right = 1.05 * max(x for x, _ in every)
    high = 1.05 * max(y for _, y in every)
    sx, sy = width / right, height / high
    parts = [_text(12, 24, title, bold=True)]
    parts += [_line(left, top + height, left + width, top + height, "#222")]
    parts += [_line(left, top, left, top + height, "#222")]
    for tick in _ticks(right):
        parts.append(_text(left + tick * sx, top + height + 18, f"{tick:g}", anchor="middle"))
    for tick in _ticks(high):
        parts.append(_text(left - 8, top + height - tick * sy + 4, f"{tick:g}", anchor="end"))
    parts.append(_text(left + width / 2, top + height + 38, x_label, anchor="middle"))
    parts.append(_text(left - 60, top - 6, y_label))
    if line is not None:
        slope, offset = line
        reach = min(right, (high - offset) / slope) if slope > 0 else right
        ends = top + height - offset * sy, top + height - (slope * reach + offset) * sy
        parts.append(_line(left, ends[0], left + reach * sx, ends[1], _LIMIT))
    for place, (name, found) in enumerate(series):
        color = (_OURS, "#d98324", "#5b8c3a", "#7b4fa3")[place % 4]
        parts += [
            f'<circle cx="{left + x * sx:.1f}" cy="{top + height - y * sy:.1f}" r="3.5" fill="{color}"/>'
            for x, y in found
        ]
        parts.append(f'<circle cx="{left + 16}" cy="{top + 12 + 18 * place}" r="4" fill="{color}"/>')
        parts.append(_text(left + 26, top + 16 + 18 * place, name))
    return _document(left + width + 20, top + height + 52, parts)


def _ticks(end: float) -> list[float]:
    """About five round numbers up to `end`."""
    rough = end / 5
    base = 10.0 ** floor(log10(rough))
    step = next(factor * base for factor in (1, 2, 5, 10) if factor * base >= rough)
    return [round(step * i, 12) for i in range(int(end / step) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} {_FONT}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="1.5"/>'


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"
