"""Results of the study's cells, picked and averaged over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from study_cells import FAMILIAR, Task, Variant, tasks

TASKS: Mapping[str, Task] = {task.name: task for task in tasks()}
Row = dict[str, Any]


@dataclass(frozen=True)
class Interval:
    """Mean over seeds and the half width of its 95 % interval (Student's t); NaN of one seed."""

    mean: float
    half: float
    seeds: int

    def percent(self, places: int = 1) -> str:
        """As in ``14.3 ± 0.8 %``; a dash where some seed has no such figure."""
        if math.isnan(self.mean):
            return "–"
        mean = round(100 * self.mean, places) + 0.0  # no −0.0
        return f"{mean:.{places}f} ± {100 * self.half:.{places}f} %"


def interval(values: Sequence[float]) -> Interval:
    found = np.asarray(values, dtype=np.float64)
    mean, half = band(found[:, None]) if len(found) else (np.full(1, np.nan), np.full(1, np.nan))
    return Interval(float(mean[0]), float(half[0]), len(found))


def band(curves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds [seeds, …] and half width of the interval; NaN where a seed is missing."""
    seeds = len(curves)
    if seeds < 2:
        return curves.mean(axis=0), np.full(curves.shape[1:], math.nan)
    error = curves.std(axis=0, ddof=1) / math.sqrt(seeds)
    return curves.mean(axis=0), student_t.ppf(0.975, seeds - 1) * error


class Results:
    """All cells of the study that are finished."""

    def __init__(self, cells: Sequence[dict[str, Any]]) -> None:
        self.cells = cells

    def of(self, task: str, variant: Variant) -> list[dict[str, Any]]:
        """The cells of one network, by seed; those whose training diverged are not among them."""
        return [cell for cell in self.every(task, variant) if "diverged" not in cell]

    def every(self, task: str, variant: Variant) -> list[dict[str, Any]]:
        return [c for c in self.cells if (c["task"], c["variant"]) == (task, variant.key)]

    def certified(self, task: str, variant: Variant, **wanted: Any) -> list[Row]:
        """Rows of certified routers that match, one a seed; at the task's own ε unless told."""
        wanted = {"risk": TASKS[task].risk, "policy": "exit", "guard": False} | wanted
        rows = [row for cell in self.of(task, variant) for row in cell["certified"]]
        return [row for row in rows if wanted.items() <= row.items()]

    def curves(
        self,
        task: str,
        variant: Variant,
        what: str,
        measure: str,
        at: NDArray[np.float64],
        policy: str = "exit",
    ) -> NDArray[np.float64]:
        """A measure against the run rate [seeds, len(at)], linear between a signal's candidates.

        Between two candidates lies a coin tossed between them, so that the line can be had.
        """
        found = []
        for cell in self.of(task, variant):
            rows = cell["oracle"] if what == "oracle" else swept(cell, what, policy)
            if not rows:
                continue
            rows = sorted([*rows, cell["full"][FAMILIAR]], key=lambda row: float(row["run_rate"]))
            rates = [row["run_rate"] for row in rows]
            values = [row[measure] for row in rows]
            found.append(np.interp(at, rates, values, left=math.nan))
        return np.array(found)


def swept(cell: dict[str, Any], what: str, policy: str = "exit") -> list[Row]:
    return [row for row in cell["sweep"] if (row["what"], row["policy"]) == (what, policy)]


def base_variants(task: str) -> list[Variant]:
    """In the order of the columns: residual and gated, plain training and exit-aware."""
    return [
        TASKS[task].base(connection, exits)
        for connection in ("residual", "gated")
        for exits in (False, True)
    ]
