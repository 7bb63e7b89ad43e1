"""Drawing figures: blocks, and curves of ways to choose depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skipserve.reporting.curves import Curve
from skipserve.reporting.inspect import Inspection
from skipserve.reporting.readings import Blocks
from skipserve.style import HEIGHT, LIGHT, WIDTH, drawing, to_png, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With two classes, margin and confidence give the same curve.
LINES: dict[str, Any] = {"random": ":", "oracle": "--", "margin": (0, (5, 2))}


@dataclass(frozen=True)
class Figure:
    """A finished figure.

    Attributes:
        name: Of its PNG, without suffix.
        title: One line above it.
        caption: What to see, for those who cannot see it too.
        svg: To be inlined.
        png: The same on light paper.
    """

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


@contextmanager
def axes_for(
    made: list[Figure], name: str, title: str, caption: str, **options: Any
) -> Iterator[Any]:
    """Axes to draw on; the finished figure is appended to ``made``."""
    with drawing(name):
        from matplotlib import pyplot as plt

        size = options.pop("size", (WIDTH, HEIGHT))
        figure, axes = plt.subplots(figsize=size, **options)
        yield axes
        made.append(Figure(name, title, caption, to_svg(figure), to_png(figure)))
        plt.close(figure)


def block_figure(found: Inspection) -> Figure:
    """Accuracy and agreement by block; norm, relative update and influence where they are known."""
    made: list[Figure] = []
    known = found.blocks is not None
    size = (WIDTH, (1.25 if known else 1.0) * HEIGHT)
    right = "" if found.accuracy is None else ", and the right one"
    caption = (
        f"How often the head, read after so many blocks, gives the answer of full depth{right}."
    )
    title = "How early the answer is there"
    if known:
        title = "What each block does"
        caption += " Below: how much each block changes the stream."
    layout = {"nrows": 1 + known, "sharex": True, "squeeze": False, "size": size}
    with axes_for(made, "blocks", title, caption, **layout) as panels:
        top, low = panels[0, 0], panels[-1, 0]
        steps = found.readings.blocks
        top.plot(steps, found.agreement, "o-", ms=3, color=LIGHT["norm"], label="agrees")
        if found.accuracy is not None:
            top.plot(steps, found.accuracy, "s-", ms=3, color=LIGHT["confidence"], label="right")
        top.yaxis.set_major_formatter(percent_axis())
        top.set_ylabel("share of the rows")
        if found.blocks is not None:
            _stream_lines(low, found.blocks)
        low.set_xlabel("block")
        legend_below(low, columns=3)
        low.xaxis.get_major_locator().set_params(integer=True)
    return made[0]


def _stream_lines(axes: Axes, blocks: Blocks) -> None:
    depth = np.arange(1, len(blocks.update) + 1)
    for values, name, colour in (
        (blocks.update, "relative update", "projected_norm"),
        (np.maximum(blocks.influence, 1e-7), "influence, 1 − cos", "oracle"),
        (blocks.norm[1:] / blocks.norm[0], "norm ÷ stem's norm", "muted"),
    ):
        axes.plot(depth, values, "o-", ms=3, color=LIGHT[colour], label=name)
    axes.set_yscale("log")


def curve_figures(curves: Sequence[Curve], depth: int) -> list[Figure]:
    """Disagreement and accuracy against blocks run."""
    made: list[Figure] = []
    fixed = next(one for one in curves if one.name == "fixed")
    on = f"{fixed.rows:,} rows; the thresholds of signals proposed on others, no guard."
    floor = 0.5 / fixed.rows
    caption = f"Lower and further left is better; on the bottom edge no answer differs. {on}"
    with axes_for(made, "disagreement", "Disagreement by blocks run", caption) as axes:
        _lines(axes, [(one, np.maximum(one.disagreement, floor)) for one in curves], depth)
        axes.set_ylim(floor, 1)
        log_rates(axes)
        axes.set_ylabel("answers that differ from full depth")
        legend_below(axes)
    if fixed.accuracy is not None:
        caption = f"Higher and further left is better. {on}"
        with axes_for(made, "accuracy", "Accuracy by blocks run", caption) as axes:
            _lines(axes, [(one, one.accuracy) for one in curves], depth)
            axes.set_ylim(*accuracy_limits(curves))
            axes.set_ylabel("right answers")
            axes.yaxis.set_major_formatter(percent_axis())
            legend_below(axes)
    return made


def accuracy_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Lowest and highest accuracy that is shown; early answers may be better than full depth's."""
    known = [one.accuracy for one in curves if one.accuracy is not None]
    best = max(float(accuracy.max()) for accuracy in known)
    low = min(float(accuracy.min()) for accuracy in known)
    return max(low, best - 0.25), best + 0.1 * min(best - low, 0.25) + 1e-3


def _lines(axes: Axes, lines: Sequence[tuple[Curve, Any]], depth: int) -> None:
    for one, heights in lines:
        colour = LIGHT["ink" if one.name == "fixed" else one.name]
        label = "fixed depth" if one.name == "fixed" else one.name.replace("_", " ")
        axes.plot(
            one.blocks, heights, linestyle=LINES.get(one.name, "-"), color=colour, label=label,
            marker="o" if one.name == "fixed" else "", ms=3.5,
        )  # fmt: skip
    axes.set_xlim(-0.02 * depth, depth + 0.3)
    axes.set_xlabel("blocks run, mean")


def legend_below(axes: Axes, columns: int = 4) -> None:
    """Put the legend below the figure."""
    axes.figure.legend(loc="outside lower center", ncols=columns)


def log_rates(axes: Axes) -> None:
    """A logarithmic axis of rates, once its limits are set."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(percent_axis())
    # Powers of ten alone are too few labels over less than two decades.
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    few = high < 100 * low
    axes.yaxis.set_minor_formatter(percent_axis() if few else NullFormatter())


def percent_axis(form: str = "{:.3g}") -> Any:
    """Label an axis in per cent."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: form.format(100 * value) + "%")
