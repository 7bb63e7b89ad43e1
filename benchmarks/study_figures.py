"""The figures of the study's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from study_cells import Variant
from study_results import TASKS, Results, band, base_variants, interval

LINES = {  # what: how it is drawn
    "norm": "C0-",
    "norm, one threshold": "C0:",
    "small norm": "C9-",
    "projected_norm": "C1-",
    "probe": "C5-",
    "gate": "C6-",
    "confidence": "C2-",
    "confidence, own heads": "C4-",
    "fixed depth": "k.--",
    "random": "0.6",
    "oracle": "C3:",
}
BANDS = ("norm", "gate", "confidence")
AT = np.linspace(0.05, 1, 96)
LEAST = 1e-3  # of what is drawn on a log axis


def draw_all(results: Results, folder: Path) -> None:
    mpl.use("Agg")
    for connection in ("residual", "gated"):
        curves(results, connection, "disagreement", folder / f"study-{connection}.png")
    curves(results, "residual", "accuracy", folder / "study-accuracy.png")
    conditions(results, folder / "study-shifted.png")
    depths(results, folder / "study-depth.png")


def curves(results: Results, connection: str, measure: str, out: Path) -> None:
    """Disagreement or accuracy against blocks run; one row a task, plain beside exit-aware."""
    figure, grid = panels(len(TASKS), 2, 3.2)
    for axes_row, (task, about) in zip(grid, TASKS.items(), strict=True):
        for axes, exits in zip(axes_row, (False, True), strict=True):
            variant = about.base(connection, exits)
            for what, look in LINES.items():
                found = results.curves(task, variant, what, measure, AT)
                if len(found) and not np.isnan(found).all():
                    line(axes, what, look, found, log=measure == "disagreement")
            axes.set(
                title=f"{about.title}: {variant.label}", xlabel="share of blocks run", xlim=(0, 1)
            )
            axes.set(ylabel=measure)
            if measure == "disagreement":
                axes.set(yscale="log", ylim=(LEAST, 1))
            else:
                axes.set_ylim(max(0, axes.get_ylim()[0]), min(1, axes.get_ylim()[1]))
            axes.grid(alpha=0.3)
    save(figure, grid[0][0], out)


def line(axes: Any, what: str, look: str, found: Any, log: bool) -> None:
    mean, half = band(found)
    if log:
        mean = np.where(mean >= LEAST, mean, np.nan)
    label = what.replace("_", " ")
    style = {"color": look} if what == "random" else {}
    args = [] if what == "random" else [look]
    (drawn,) = axes.plot(AT, mean, *args, label=label, linewidth=1.4, markevery=5, **style)
    if what in BANDS:
        low = np.clip(mean - half, LEAST if log else None, None)
        axes.fill_between(AT, low, mean + half, color=drawn.get_color(), alpha=0.2, linewidth=0)


def conditions(results: Results, out: Path) -> None:
    """Disagreement of certified routers, guard off and on, by condition."""
    figure, grid = panels(len(TASKS), 2, 3.4)
    for axes_row, (task, about) in zip(grid, TASKS.items(), strict=True):
        for axes, connection in zip(axes_row, ("residual", "gated"), strict=True):
            variant = about.base(connection, True)
            certified(results, task, variant, axes)
            axes.set(title=f"{about.title}: {variant.label}", ylabel="disagreement")
            axes.set(yscale="symlog", ylim=(0, 1))
            axes.set_yscale("symlog", linthresh=0.01)
            axes.axhline(about.risk, color="0.4", linewidth=1, linestyle=":")
            axes.grid(alpha=0.3)
    save(figure, grid[0][1], out)


def certified(results: Results, task: str, variant: Variant, axes: Any) -> None:
    cells = results.of(task, variant)
    if not cells:
        return
    names = list(cells[0]["full"])
    for what in ("norm", "gate", "confidence", "confidence, own heads"):
        for guard in (False, True):
            found = []
            for name in names:
                rows = results.certified(task, variant, what=what, guard=guard, condition=name)
                found.append(interval([row["disagreement"] for row in rows]))
            if not found[0].seeds:
                continue
            axes.errorbar(
                range(len(names)),
                [one.mean for one in found],
                yerr=[one.half for one in found],
                color=LINES[what][:2],
                linestyle="--" if guard else "-",
                marker="o" if guard else "s",
                markersize=3,
                linewidth=1,
                label=f"{what}, {'guard' if guard else 'no guard'}",
            )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)


def depths(results: Results, out: Path) -> None:
    """Accuracy when all rows stop after so many blocks."""
    figure, grid = panels(1, len(TASKS), 3.6)
    for axes, (task, about) in zip(grid[0], TASKS.items(), strict=True):
        for variant in base_variants(task):
            found = np.array([cell["accuracy_by_depth"] for cell in results.of(task, variant)])
            if not len(found):
                continue
            look = "C0" if variant.connection == "residual" else "C6"
            mean, half = band(found)
            at = np.arange(1, len(mean) + 1)
            style = "-" if variant.exits else "--"
            axes.plot(at, mean, style, color=look, marker=".", label=variant.label)
            axes.fill_between(at, mean - half, mean + half, color=look, alpha=0.15, linewidth=0)
        axes.set(title=about.title, xlabel="blocks run", ylabel="accuracy")
        axes.set_ylim(max(0, axes.get_ylim()[0]), min(1, axes.get_ylim()[1]))
        axes.grid(alpha=0.3)
    save(figure, grid[0][0], out)


def panels(rows: int, columns: int, height: float) -> tuple[Any, Any]:
    from matplotlib import pyplot as plt

    size = (5.5 * columns if columns == 2 else 4 * columns, height * rows)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def save(figure: Any, legend_of: Any, out: Path) -> None:
    from matplotlib import pyplot as plt

    handles, labels = legend_of.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(out, dpi=100)
    plt.close(figure)
