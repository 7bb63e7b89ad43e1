"""Figures of the served artifact: certificates, depths, milliseconds, risk by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skipserve.intervals import Rate, percent
from skipserve.reporting.cost import Cost
from skipserve.reporting.curves import Curve
from skipserve.reporting.figures import Figure, axes_for, legend_below, log_rates, percent_axis
from skipserve.reporting.served import Point, Routed
from skipserve.style import LIGHT, WIDTH

# Classes below this many rows have intervals that say nothing.
CLASS_ROWS = 20


def certified_figure(points: Sequence[Point], fixed: Curve, depth: int) -> Figure:
    """Each certificate: result in certification and on the sample."""
    made: list[Figure] = []
    caption = (
        "Each colour is one certified risk; its dashed line is the promise. Filled: the rows it "
        "was certified on. Hollow: the rows of this report. Bars: exact 95% intervals."
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
        lows = [one.low for one in rates if one.low > 0]
        axes.set_xlim(0.8 * min(runs), min(1.7 * max(runs), 1.02 * depth))
        axes.set_ylim(min(lows, default=1e-4) / 2, 2 * max(one.high for one in rates))
        log_rates(axes)
        axes.set(xlabel="blocks run, mean", ylabel="answers that differ from full depth")
        legend_below(axes)
    return made[0]


def depth_figure(routed: Routed, depth: int) -> Figure:
    """Rows by the depth at which they stop."""
    made: list[Figure] = []
    held = int(routed.held_back.sum())
    caption = (
        f"Blocks run by {len(routed.depth_run):,} rows at ε = {percent(routed.risk)}; "
        f"{routed.depth_run.mean():.2f} of {depth} on average. The guard sent {held:,} unfamiliar "
        "rows to full depth."
    )
    with axes_for(made, "depth", "Where rows stop", caption) as axes:
        counts = np.bincount(routed.depth_run, minlength=depth + 1) / len(routed.depth_run)
        held_share = held / len(routed.depth_run)
        steps = np.arange(depth + 1)
        axes.bar(steps, counts, color=LIGHT["norm"], width=0.8)
        if held:
            axes.bar([depth], [held_share], color=LIGHT["confidence"], width=0.8, label="guard")
            legend_below(axes)
        for step, share in zip(steps, counts, strict=True):
            if share >= 5e-4:
                axes.text(step, share, f"{share:.1%}", ha="center", va="bottom", fontsize=8)
        axes.set(xlabel="blocks run", ylabel="share of the rows")
        axes.yaxis.set_major_formatter(percent_axis())
        axes.grid(axis="x", visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return made[0]


def cost_figure(cost: Cost, fixed: Curve, points: Sequence[Point]) -> Figure:
    """Disagreement against milliseconds a row."""
    made: list[Figure] = []
    rows = "one row at a time" if cost.batch_size == 1 else f"batches of {cost.batch_size}"
    caption = (
        "Milliseconds a row through the engine that serves, medians of interleaved rounds on the "
        "machine that made this page. On the bottom edge no answer differs."
    )
    if cost.cut_ms:
        caption += (
            " Diamonds: the network cut at a fixed depth that can be certified, and exported alone."
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
        if cost.cut_ms:
            axes.plot(
                list(cost.cut_ms.values()),
                [max(by_blocks[blocks], floor) for blocks in cost.cut_ms],
                "D", ms=5, color=LIGHT["oracle"], label="cut, exported alone",
            )  # fmt: skip
        routed = [
            (cost.router_ms[one.certificate.risk], max(one.seen.value, floor)) for one in points
        ]
        axes.plot(
            *zip(*routed, strict=True), "o-", ms=5, color=LIGHT["confidence"],
            label="router, certified",
        )  # fmt: skip
        for place, risks in _together(points, routed):
            left = place[0] > 0.25 * cost.full_ms  # there is room for it
            axes.annotate(
                f"ε = {', '.join(map(percent, risks))}", place,
                xytext=(-7 if left else 7, 0), textcoords="offset points",
                ha="right" if left else "left", va="center", fontsize=8,
            )  # fmt: skip
        axes.set_xlim(0, None)
        axes.set_ylim(floor / 1.5, 1.5 * max(fixed.disagreement.max(), floor))
        log_rates(axes)
        axes.set(xlabel="milliseconds a row", ylabel="answers that differ from full depth")
        legend_below(axes)
    return made[0]


def _together(
    points: Sequence[Point], places: Sequence[tuple[float, float]]
) -> list[tuple[tuple[float, float], list[float]]]:
    """Places with the risks that stand there; one candidate may have several certificates."""
    by_candidate: dict[int, tuple[tuple[float, float], list[float]]] = {}
    for one, place in zip(points, places, strict=True):
        made = one.certificate
        by_candidate.setdefault(made.candidate, (place, []))[1].append(made.risk)
    return list(by_candidate.values())


def risk_figure(routed: Routed, names: Sequence[str] = ()) -> Figure | None:
    """Disagreement among all rows, among the skipped, and by class; ``None`` for one class only."""
    classes = [(one, found) for one, found in routed.by_class if found.total >= CLASS_ROWS]
    if len(classes) < 2:
        return None
    made: list[Figure] = []
    caption = (
        "A certificate speaks of all rows together. Among those that left something out, and in "
        "one class, the rate may be higher. Bars: exact 95% intervals."
    )
    bars: list[tuple[str, Rate, str]] = [
        ("all rows", routed.all_rows, "ink"),
        ("skipped rows", routed.skipped, "confidence"),
        *((names[one] if names else f"answer {one}", found, "norm") for one, found in classes),
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
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.set_xlabel("answers that differ from full depth (dashed: ε)")
        axes.xaxis.set_major_formatter(percent_axis())
        axes.grid(axis="y", visible=False)
    return made[0]
