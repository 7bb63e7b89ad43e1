"""The figures of both commands: what each shows, in the design's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skipserve.reporting.cost import Cost
from skipserve.reporting.curves import Curve
from skipserve.reporting.inspect import Inspection
from skipserve.reporting.rate import Rate, percent
from skipserve.reporting.served import Point, Routed
from skipserve.reporting.style import HEIGHT, LIGHT, WIDTH, drawing, to_png, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Classes below this many rows have intervals that say nothing.
CLASS_ROWS = 20
# With two classes margin and confidence choose alike, and one would hide the other.
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
    """Norm, relative update, influence, accuracy and agreement by block."""
    made: list[Figure] = []
    size = (WIDTH, 1.25 * HEIGHT)
    caption = (
        "Above: how often the head, read after each block, gives the answer of full depth, and "
        "the right one. Below: how much each block changes the stream."
    )
    title = "What each block does"
    with axes_for(made, "blocks", title, caption, nrows=2, sharex=True, size=size) as (top, low):
        steps = found.readings.blocks
        top.plot(steps, found.agreement, "o-", ms=3, color=LIGHT["norm"], label="agrees")
        if found.accuracy is not None:
            top.plot(steps, found.accuracy, "s-", ms=3, color=LIGHT["confidence"], label="right")
        top.yaxis.set_major_formatter(_percent())
        top.set_ylabel("share of the rows")
        top.legend(loc="lower right")
        if found.blocks is not None:
            depth = np.arange(1, len(found.blocks.update) + 1)
            for values, name, colour in (
                (found.blocks.update, "relative update", "projected_norm"),
                (np.maximum(found.blocks.influence, 1e-7), "influence, 1 − cos", "oracle"),
                (found.blocks.norm[1:] / found.blocks.norm[0], "norm ÷ stem's norm", "muted"),
            ):
                low.plot(depth, values, "o-", ms=3, color=LIGHT[colour], label=name)
            low.set_yscale("log")
            low.legend(loc="best")
        else:
            low.text(0.5, 0.5, "needs the checkpoint", ha="center", transform=low.transAxes)
        low.set_xlabel("block")
        low.xaxis.get_major_locator().set_params(integer=True)
    return made[0]


def curve_figures(curves: Sequence[Curve], depth: int) -> list[Figure]:
    """Disagreement and accuracy against blocks run, a figure for each policy."""
    made: list[Figure] = []
    fixed = next(one for one in curves if (one.name, one.policy) == ("fixed", "exit"))
    oracle = next(one for one in curves if (one.name, one.policy) == ("oracle", "exit"))
    for policy in ("exit", "skip"):
        own = [one for one in curves if one.policy == policy and one not in (fixed, oracle)]
        if not own:
            continue
        drawn = [fixed, oracle, *own]
        said = "all later blocks" if policy == "exit" else "one stage"
        rows = min(one.rows for one in own)
        on = f"{rows:,} rows, thresholds proposed on others, no guard."
        title = f"Disagreement, policy {policy} (leaves out {said})"
        floor = 0.5 / max(rows, fixed.rows)
        caption = f"Lower and further left is better; on the bottom edge no answer differs. {on}"
        with axes_for(made, f"disagreement-{policy}", title, caption) as axes:
            _lines(axes, [(one, np.maximum(one.disagreement, floor)) for one in drawn], depth)
            axes.set_yscale("log")
            axes.set_ylim(floor, 1)
            axes.set_ylabel("answers that differ from full depth")
            axes.yaxis.set_major_formatter(_percent("{:.3g}"))
            _legend_below(axes)
        if fixed.accuracy is not None:
            title, caption = (
                f"Accuracy, policy {policy}",
                f"Higher and further left is better. {on}",
            )
            with axes_for(made, f"accuracy-{policy}", title, caption) as axes:
                _lines(axes, [(one, one.accuracy) for one in drawn], depth)
                best = float(fixed.accuracy.max())
                low = min(float(one.accuracy.min()) for one in drawn if one.accuracy is not None)
                axes.set_ylim(max(low, best - 0.25), best + 0.1 * min(best - low, 0.25) + 1e-3)
                axes.set_ylabel("right answers")
                axes.yaxis.set_major_formatter(_percent())
                _legend_below(axes)
    return made


def certified_figure(points: Sequence[Point], fixed: Curve, depth: int) -> Figure:
    """Each certificate: where it was tested, and how it went on other rows."""
    made: list[Figure] = []
    caption = (
        "Each colour is one certified risk; its dashed line is the promise. Filled: the rows it "
        "was certified on. Hollow: the rows of this report. Bars: exact 95 % intervals."
    )
    with axes_for(made, "certified", "The certified points", caption) as axes:
        axes.plot(fixed.blocks, np.maximum(fixed.disagreement, 1e-9), "-", color=LIGHT["muted"])
        axes.plot([], [], "-", color=LIGHT["muted"], label="fixed depth")
        colours = ("norm", "projected_norm", "margin", "confidence", "oracle", "gate")
        for at, point in enumerate(points):
            colour = LIGHT[colours[at % len(colours)]]
            risk = point.certificate.risk
            axes.axhline(risk, color=colour, linestyle="--", linewidth=0.9)
            for found, run_rate, fill in (
                (point.tested, point.certificate.run_rate, colour),
                (point.seen, point.run_rate, "none"),
            ):
                value = max(found.value, 1e-9)
                bars = [[max(value - found.low, 0)], [found.high - value]]
                axes.errorbar(
                    [run_rate * depth], [value], bars, fmt="o", ms=5, capsize=3, mfc=fill,
                    color=colour, label=f"ε = {percent(risk)}" if fill == colour else None,
                )  # fmt: skip
        runs = [one.certificate.run_rate * depth for one in points]
        rates = [one.tested for one in points] + [one.seen for one in points]
        within = fixed.blocks[fixed.disagreement >= min(max(one.low, 1e-9) for one in rates) / 2]
        axes.set_xlim(0.9 * min(runs), max([*(1.15 * run for run in runs), *within[:1] * 1.02]))
        axes.set_yscale("log")
        low = (
            min(one.low for one in rates if one.low > 0) if any(one.low for one in rates) else 1e-4
        )
        axes.set_ylim(low / 2, 3 * max(max(one.high for one in rates), points[-1].certificate.risk))
        axes.set(xlabel="blocks run, mean", ylabel="answers that differ from full depth")
        axes.yaxis.set_major_formatter(_percent("{:.3g}"))
        axes.legend(loc="upper right")
    return made[0]


def depth_figure(routed: Routed, depth: int) -> Figure:
    """How many rows stop where."""
    made: list[Figure] = []
    held = int(routed.held_back.sum())
    caption = (
        f"Blocks run by {len(routed.depth_run):,} rows at ε = {percent(routed.risk)}; "
        f"{routed.depth_run.mean():.2f} of {depth} on average. The guard sent {held:,} unfamiliar "
        "rows to full depth."
    )
    with axes_for(made, "depth", "Where rows stop", caption) as axes:
        counts = np.bincount(routed.depth_run, minlength=depth + 1)[1:] / len(routed.depth_run)
        held_share = held / len(routed.depth_run)
        steps = np.arange(1, depth + 1)
        axes.bar(steps, counts, color=LIGHT["norm"], width=0.8)
        if held:
            axes.bar([depth], [held_share], color=LIGHT["confidence"], width=0.8, label="guard")
            axes.legend(loc="upper right")
        for step, share in zip(steps, counts, strict=True):
            if share >= 5e-4:
                axes.text(step, share, f"{share:.1%}", ha="center", va="bottom", fontsize=8)
        axes.set(xlabel="blocks run", ylabel="share of the rows")
        axes.yaxis.set_major_formatter(_percent())
        axes.grid(axis="x", visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return made[0]


def cost_figure(cost: Cost, fixed: Curve, points: Sequence[Point]) -> Figure:
    """Disagreement against milliseconds a row."""
    made: list[Figure] = []
    rows = "one row at a time" if cost.batch_size == 1 else f"batches of {cost.batch_size}"
    caption = (
        "Milliseconds a row through the engine that serves, medians of interleaved rounds on the "
        "machine that made this page. The diamond is the network cut to the shortest fixed depth "
        "that can be certified, exported alone."
    )
    by_blocks = dict(zip(fixed.blocks.tolist(), fixed.disagreement.tolist(), strict=True))
    floor = 0.5 / fixed.rows
    with axes_for(made, f"cost-{cost.batch_size}", f"Milliseconds, {rows}", caption) as axes:
        steps = [*cost.fixed_ms.items(), (max(by_blocks), cost.full_ms)]
        axes.plot(
            [ms for _, ms in steps],
            [max(by_blocks[blocks], floor) for blocks, _ in steps],
            "o-", ms=4, color=LIGHT["muted"], label="fixed depth",
        )  # fmt: skip
        for blocks, ms in cost.cut_ms.items():
            axes.plot(
                [ms], [max(by_blocks[blocks], floor)], "D", ms=6, color=LIGHT["oracle"],
                label=f"cut to {blocks} blocks",
            )  # fmt: skip
        axes.plot(
            [cost.router_ms[one.certificate.risk] for one in points],
            [max(one.seen.value, floor) for one in points],
            "o-", ms=5, color=LIGHT["confidence"], label="router, certified",
        )  # fmt: skip
        for one in points:
            place = (cost.router_ms[one.certificate.risk], max(one.seen.value, floor))
            axes.annotate(
                percent(one.certificate.risk), place, xytext=(-6, 0), textcoords="offset points",
                ha="right", va="center", fontsize=8,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(0, None)
        axes.set(xlabel="milliseconds a row", ylabel="answers that differ from full depth")
        axes.yaxis.set_major_formatter(_percent("{:.3g}"))
        axes.legend(loc="upper right")
    return made[0]


def risk_figure(routed: Routed) -> Figure | None:
    """Disagreement among all rows, among the skipped, and by class; ``None`` for one class only."""
    classes = [(one, found) for one, found in routed.by_class if found.total >= CLASS_ROWS]
    if len(classes) < 2:
        return None
    made: list[Figure] = []
    caption = (
        "A certificate speaks of all rows together. Among those that left something out, and in "
        "one class, the rate may be higher. Bars: exact 95 % intervals."
    )
    bars: list[tuple[str, Rate, str]] = [
        ("all rows", routed.all_rows, "ink"),
        ("skipped rows", routed.skipped, "confidence"),
        *((f"answer {one}", found, "norm") for one, found in classes),
    ]
    height = 0.9 + 0.26 * len(bars)
    title = f"Who bears the risk, at ε = {percent(routed.risk)}"
    with axes_for(made, "risk", title, caption, size=(WIDTH, height)) as axes:
        for at, (_, found, colour) in enumerate(bars):
            ends = [[found.value - found.low], [found.high - found.value]]
            axes.errorbar(
                [found.value], [at], xerr=ends, fmt="o", ms=5, capsize=3, color=LIGHT[colour]
            )
        axes.axvline(routed.risk, color=LIGHT["muted"], linestyle="--", linewidth=0.9)
        axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, None)
        axes.set_xlabel("answers that differ from full depth (dashed: ε)")
        axes.xaxis.set_major_formatter(_percent("{:.2g}"))
        axes.grid(axis="y", visible=False)
    return made[0]


def _lines(axes: Axes, lines: Sequence[tuple[Curve, Any]], depth: int) -> None:
    for one, heights in lines:
        colour = LIGHT["ink" if one.name == "fixed" else one.name]
        label = "fixed depth" if one.name == "fixed" else one.name.replace("_", " ")
        axes.plot(
            one.blocks, heights, linestyle=LINES.get(one.name, "-"), color=colour, label=label,
            marker="o" if one.name == "fixed" else "", ms=3.5,
        )  # fmt: skip
    axes.set_xlim(0, depth + 0.3)
    axes.set_xlabel("blocks run, mean")


def _legend_below(axes: Axes) -> None:
    axes.figure.legend(loc="outside lower center", ncols=4)


def _percent(form: str = "{:.0f}") -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: form.format(100 * value) + "%")
