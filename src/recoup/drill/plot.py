"""A plot of a number over the drills, against what was promised, as SVG that needs nothing else. Pure.

Shape and words carry the meaning as well as colour does: a ring is a drill that did not pass, a cross a number that
was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Final

from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration

_WIDTH: Final = 720
_HEIGHT: Final = 200
_LEFT: Final = 70
_RIGHT: Final = 16
_TOP: Final = 36
_BOTTOM: Final = 34
_LABELS: Final = 8
#: Seconds of the steps that people read an axis by.
_STEPS: Final = (
    *(one for unit in (1, 60, 3600) for one in (unit, 2 * unit, 5 * unit, 10 * unit, 15 * unit, 30 * unit)),
    *(3600 * hours for hours in (4, 6, 8, 12, 24, 48, 72, 168, 336, 720, 2160, 8760)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One drill in the plot."""

    when: datetime
    measured: timedelta | None
    objective: timedelta | None
    verdict: Verdict
    current: bool = False


def plot(name: str, points: Sequence[Point], *, anchor: str, style: str = "") -> str:
    """An SVG element. ``anchor`` makes its ids unique in a page. The newest point is on the right.

    Its looks are in classes; ``style`` is CSS to put into it, where no page around it has any.
    """
    top, step = _scale(points)
    wide = (_WIDTH - _LEFT - _RIGHT) / max(len(points), 1)

    def x(number: int) -> float:
        return _LEFT + wide * (number + 0.5)

    def y(seconds: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - seconds / top)

    box = f'xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg {box} role="img" aria-labelledby="{anchor}-t {anchor}-d">',
        f"<style>{style}</style>" if style else "",
        f'<title id="{anchor}-t">{escape(name)} over the drills</title>',
        f'<desc id="{anchor}-d">{escape(described(points))}</desc>',
        f'<text class="name" x="0" y="14">{escape(name)}</text>',
    ]
    for number in range(round(top / step) + 1):
        level = y(number * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        label = "0" if number == 0 else show_duration(number * step).replace(".0 s", " s")
        parts.append(f'<text class="axis" x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    parts += _objectives(points, x, y, wide)
    known = [(x(at), y(_seconds(one.measured))) for at, one in enumerate(points) if one.measured is not None]
    if len(known) > 1:
        way = " ".join(f"{'M' if at == 0 else 'L'}{left:.1f} {level:.1f}" for at, (left, level) in enumerate(known))
        parts.append(f'<path class="way" d="{way}"/>')
    every = max(1, math.ceil(len(points) / _LABELS))
    for at, one in enumerate(points):
        parts.append(_mark(one, x(at), y(_seconds(one.measured)), y(0)))
        if (len(points) - 1 - at) % every == 0:
            day = one.when.strftime("%Y-%m-%d")
            parts.append(f'<text class="axis" x="{x(at):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{day}</text>')
    return "".join([*parts, "</svg>"])


def _objectives(
    points: Sequence[Point], x: Callable[[int], float], y: Callable[[float], float], wide: float
) -> list[str]:
    parts = []
    last: timedelta | None = None
    for at, one in enumerate(points):
        if one.objective is None:
            continue
        left, level = x(at) - wide / 2, y(_seconds(one.objective))
        parts.append(
            f'<line class="promise" x1="{left:.1f}" x2="{left + wide:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>'
        )
        last = one.objective
    if last is not None:
        level = y(_seconds(last))
        text = f"{show_duration(last)} promised"
        parts.append(
            f'<text class="promised" x="{_WIDTH - _RIGHT}" y="{level - 5:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    return parts


def _mark(one: Point, left: float, level: float, floor: float) -> str:
    day = one.when.strftime("%Y-%m-%d")
    if one.measured is None:
        text = f"{day}: not measured, {one.verdict}"
        cross = f"M{left - 5:.1f} {floor - 5:.1f}l10 10m0 -10l-10 10"
        return f'<path class="cross" d="{cross}"><title>{escape(text)}</title></path>'
    text = f"{day}: {show_duration(one.measured)}, {one.verdict}"
    kind = "good" if one.verdict is Verdict.OK else "bad"
    size = 6.5 if one.current else 4.5
    return f'<circle class="{kind}" cx="{left:.1f}" cy="{level:.1f}" r="{size}"><title>{escape(text)}</title></circle>'


def _scale(points: Sequence[Point]) -> tuple[float, float]:
    """The top of the axis and the distance of its lines, in seconds: three to six lines above zero."""
    values = [_seconds(one) for point in points for one in (point.measured, point.objective) if one is not None]
    highest = max([*values, 1.0]) * 1.05
    step = next((one for one in _STEPS if highest / one <= 5), math.ceil(highest / 5))
    return math.ceil(highest / step) * step, step


def described(points: Sequence[Point]) -> str:
    """The plot in words."""
    measured = [one.measured for one in points if one.measured is not None]
    if not measured:
        return f"{len(points)} drills; it was not measured in any of them"
    return (
        f"{len(points)} drills, measured in {len(measured)}: from {show_duration(min(measured))} to "
        f"{show_duration(max(measured))}, last {show_duration(measured[-1])}"
    )


def _seconds(duration: timedelta | None) -> float:
    return 0.0 if duration is None else max(0.0, duration.total_seconds())
