"""Latency charts as SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from skipserve.style import LIGHT, drawing, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (7.6, 3.2)


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        colour: Of the palette: what the line is of.
        points: x, and y in ms; what is not finite is left out.
        dashed: Apart from another line of the same colour.
        dots: Not joined.
    """

    colour: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    dots: bool = False


def latency_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    marks: Sequence[tuple[float, str]] = (),
    x_ticks: Sequence[tuple[float, str]] = (),
    log_x: bool = False,
) -> str:
    """Draw latency, on a logarithmic axis, against anything.

    Args:
        title: For those who cannot see it.
        lines: May be without points.
        x_label: With the unit.
        marks: Latencies in ms that get a line across and a text.
        x_ticks: In place of round numbers; the first and last are the ends.
        log_x: Whether equal factors are equal lengths.
    """
    with drawing(title):
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=SIZE)
        for line in lines:
            points = [(x, y) for x, y in line.points if math.isfinite(y)]
            x, y = zip(*points, strict=True) if points else ((), ())
            stroke = "" if line.dots else "--" if line.dashed else "-"
            axes.plot(
                x, y, color=LIGHT[line.colour], linestyle=stroke, marker="o" * line.dots, ms=3.5
            )
        for limit, text in marks:
            axes.axhline(limit, color=LIGHT["muted"], linestyle=":", linewidth=1)
            across = axes.get_yaxis_transform()
            axes.text(1, limit, text, transform=across, ha="right", va="bottom", fontsize=8.5)
        axes.set_yscale("log")
        if log_x:
            axes.set_xscale("log")
        _label(axes, log_x)
        if x_ticks:
            axes.set_xticks([at for at, _ in x_ticks], [text for _, text in x_ticks])
            axes.set_xlim(x_ticks[0][0], x_ticks[-1][0])
        axes.set(xlabel=x_label, ylabel="ms")
        svg = to_svg(figure)
        plt.close(figure)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _label(axes: Axes, log_x: bool) -> None:
    """Write 1, 2 and 5 times powers of ten as plain numbers, at least two on each axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in [axes.yaxis, axes.xaxis] if log_x else [axes.yaxis]:
        low, high = axis.get_view_interval()
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        if sum(low <= step <= high for step in steps) < 2:
            # A little beyond, so that the ticks themselves are in sight.
            below = 0.95 * max(step for step in steps if step <= low)
            above = 1.05 * min(step for step in steps if step >= high)
            axis.set_view_interval(below, above, ignore=True)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
