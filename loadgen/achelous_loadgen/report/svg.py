"""Plots as SVG that stands in a page by itself: lines over logarithmic axes, nothing to load."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 20, 45
_BAR: Final = 24
_COLOURS: Final = ("#0b6e99", "#c2410c", "#64748b", "#a16207")


class _Axis:
    """Values to pixels, by their logarithms or as they are."""

    def __init__(self, values: Sequence[float], pixels: tuple[float, float], *, log: bool) -> None:
        self._log = log
        low, high = min(values), max(values)
        if log:
            self._low = float(math.floor(math.log10(low)))
            self._high = float(math.ceil(math.log10(high)))
        else:
            self._low, self._high = 0.0, high
        if self._low == self._high:
            self._high = self._low + 1
        self._from, self._to = pixels

    def at(self, value: float) -> float:
        scaled = math.log10(value) if self._log else value
        part = (scaled - self._low) / (self._high - self._low)
        return round(self._from + part * (self._to - self._from), 1)

    def ticks(self) -> list[float]:
        if self._log:
            return [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        return [self._high * part / 4 for part in range(5)]


def plot(title: str, axes: tuple[str, str], lines: Mapping[str, Points], *, log_y: bool) -> str:
    """An <svg>. x is logarithmic; points that a logarithm can not show are left out."""
    shown = {
        name: [(x, y) for x, y in points if x > 0 and (y > 0 or not log_y)]
        for name, points in lines.items()
    }
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return f"<p>{escape(title)}: nothing was measured.</p>"
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    x_axis = _Axis(xs, (_LEFT, _WIDTH - _RIGHT), log=True)
    y_axis = _Axis(ys, (_HEIGHT - _BOTTOM, _TOP), log=log_y)
    parts = [*_grid(x_axis, y_axis, axes)]
    for number, (name, points) in enumerate(shown.items()):
        parts += _line(name, points, (x_axis, y_axis), number)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def bars(title: str, values: Mapping[str, float]) -> str:
    """An <svg> of parts of a whole, 0..1, as bars from the left; the first is ours."""
    widest = max(*values.values(), 1e-6)
    height = _BAR * len(values) + 8
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = _BAR * number
        width = round(value / widest * (_WIDTH - _LEFT - _RIGHT), 1)
        colour = _COLOURS[0 if number == 0 else 1]
        parts.append(f'<text x="{_LEFT}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{_LEFT + 8}" y="{y + 4}" width="{width}" height="16" fill="{colour}"/>'
        )
        parts.append(f'<text x="{_LEFT + 14 + width}" y="{y + 16}">{value:.2%}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 and value == int(value) else f"{value:g}"


def _grid(x_axis: _Axis, y_axis: _Axis, names: tuple[str, str]) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x_axis.ticks():
        x = x_axis.at(tick)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_number(tick)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(names[0])}</text>'
    )
    parts.append(f'<text x="4" y="12">{escape(names[1])}</text>')
    return parts


def _line(name: str, points: Points, axes: tuple[_Axis, _Axis], number: int) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(axes[0].at(x), axes[1].at(y)) for x, y in points]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    y = _TOP + 12 + 18 * number
    parts = [f'<path fill="none" stroke="{colour}" stroke-width="2" d="{path}"/>']
    parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places[:60]]
    left = _WIDTH - _RIGHT + 14
    parts.append(f'<rect x="{left}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
    parts.append(f'<text x="{left + 15}" y="{y + 1}">{escape(name)}</text>')
    return parts
