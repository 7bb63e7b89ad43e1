"""Line charts as SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: For the tooltip.
        style: Classes of the style sheet, such as ``asked dashed``.
        points: x and y, in the data's units.
        line: Whether the points are joined.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    line: bool = True


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: With the unit.
        ticks: Value and text; the first and last are the ends.
        log: Whether equal factors are equal lengths.
    """

    label: str
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        low, high = self.ticks[0][0], self.ticks[-1][0]
        if self.log:
            value, low, high = (math.log10(max(one, 1e-9)) for one in (value, low, high))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def line_chart(
    series: Sequence[Series], x: Axis, y: Axis, title: str, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Draw a chart; ``marks`` are values on the y axis that get a line and a text."""

    def px(value: float) -> float:
        return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)

    def py(value: float) -> float:
        return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value, text in y.ticks:
        parts.append(_rule(py(value), "grid"))
        parts.append(_text(LEFT - 8, py(value) + 4, text, "end"))
    for value, text in x.ticks:
        parts.append(_text(px(value), HEIGHT - BOTTOM + 18, text))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.label))
    turn = f"translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turn}" text-anchor="middle">{escape(y.label)}</text>')
    for value, text in marks:
        parts.append(_rule(py(value), "mark"))
        parts.append(_text(WIDTH - RIGHT - 4, py(value) - 5, text, "end"))
    for one in series:
        spots = [(px(a), py(b), a, b) for a, b in one.points if math.isfinite(b)]
        if one.line and spots:
            path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _, _ in spots)
            parts.append(f'<polyline class="{one.style}" points="{path}"/>')
        for left, top, a, b in spots:
            parts.append(
                f'<circle class="{one.style}" cx="{left:.1f}" cy="{top:.1f}" r="3">'
                f"<title>{escape(one.name)}: {b:.4g} at {a:.4g}</title></circle>"
            )
    return "".join([*parts, "</svg>"])


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(y: float, style: str) -> str:
    return f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def log_ticks(values: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks at 1, 2 and 5 times powers of ten that enclose the values."""
    finite = [value for value in values if math.isfinite(value) and value > 0] or [1.0, 10.0]
    first, last = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
    steps = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    low = max(step for step in steps if step <= min(finite) * (1 + 1e-9))
    high = min((step for step in steps if step >= max(finite) * (1 - 1e-9)), default=10.0**last)
    inside = [step for step in steps if low <= step <= max(high, low * 2)]
    return [(step, f"{step:g}") for step in inside]


def linear_ticks(highest: float, count: int = 6) -> list[tuple[float, str]]:
    """Round ticks from 0 to at least ``highest``."""
    step = 10.0 ** math.floor(math.log10(max(highest, 1e-9) / count))
    while step * count < highest:
        step *= 2 if str(step).lstrip("0.")[0] in "15" else 2.5
    return [(step * number, f"{step * number:g}") for number in range(count + 1)]
