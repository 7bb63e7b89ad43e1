"""The study's page: prose by hand above the mark, tables and figures from the cells below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import study_figures
import study_tables
from study_cells import FAMILIAR
from study_results import TASKS, Results, base_variants, interval

MARK = "<!-- Below is written by benchmarks/study.py; above is written by hand. -->"


def write_page(page: Path, cells: Sequence[dict[str, Any]], wanted: int, hardware: str) -> None:
    """Write page and figures, keeping what stands above the mark."""
    results = Results(cells)
    by_hand = page.read_text().partition(MARK)[0] if page.exists() else "# The study\n\n"
    study_figures.draw_all(results, page.parent)
    page.write_text(
        f"{by_hand}{MARK}\n\n" + "\n\n".join(measured(results, wanted, hardware)) + "\n"
    )


def measured(results: Results, wanted: int, hardware: str) -> Iterator[str]:
    yield "## What was measured"
    seeds = 1 + max(cell["seed"] for cell in results.cells)
    fewest = min(Counter((cell["task"], cell["variant"]) for cell in results.cells).values())
    spread = f"{seeds}" if fewest == seeds else f"{fewest} to {seeds}"
    minutes = sum(cell["seconds"] for cell in results.cells) / 60
    yield (
        f"Means ± 95 % intervals (Student's t) over {spread} seeds; each seed has its own "
        f"weights, order of rows and draw of the data. {len(results.cells)} of {wanted} cells; "
        f"{minutes:.0f} minutes of one process, the machine shared. "
        f"Command: `python benchmarks/study.py --seeds {seeds}`. Hardware: {hardware}."
    )
    yield "### Accuracy when every row stops after d blocks"
    yield "![Accuracy by depth](study-depth.png)"
    yield from in_distribution(results)
    yield from shifted(results)
    yield "### The gate as a signal"
    yield (
        "AUROC says how well a signal separates rows whose answer is settled from the rest, "
        "averaged over the decisions; 0.5 is chance. *Gates open* says how far they do."
    )
    for task, about in TASKS.items():
        for exits in (False, True):
            yield f"**{about.title}: {about.base('gated', exits).label}**"
            yield study_tables.gates(results, task, exits)
    yield "### Leaving for good, or leaving out single blocks"
    yield (
        "Each cell shows the blocks run at the certified ε, then the disagreement on test, of the "
        "policies `exit` and `skip`."
    )
    yield study_tables.policies(results)
    yield "### The place of the normalisation, and α"
    yield "Blocks run at the certified ε, of residual, exit-aware networks."
    yield study_tables.placements(results)
    yield "### FP16 beside FP32"
    yield (
        "The thresholds were certified in FP32. The guard is on, 500 test rows run, and both "
        "precisions run in PyTorch."
    )
    yield study_tables.precisions(results)


def in_distribution(results: Results) -> Iterator[str]:
    yield "### On rows like those of the certificate"
    yield (
        "Each cell shows the blocks run at the certified ε, then the disagreement on test. There "
        "is no guard. *Fixed depth* is the shallowest depth that certifies. *Random* leaves at "
        "each block with the same chance. *Oracle* is the least that any exit can run with ε "
        "disagreement on test. *Refused* means that even the most careful candidate could not be "
        "certified, so everything runs. *Heads of their own* are fitted to each depth by "
        "distillation, and answer the rows that leave there."
    )
    for task, about in TASKS.items():
        yield f"**{about.title}, ε = {about.risk:.0%}**"
        yield study_tables.run_rates(results, task)
    yield "![Disagreement against blocks run, residual networks](study-residual.png)"
    yield "![Disagreement against blocks run, gated networks](study-gated.png)"
    yield "### What dropping blocks costs in accuracy"
    yield (
        "Percentage points of accuracy lost on test. A share between two candidates of a router "
        "is reached by tossing a coin for each row. A negative loss is a gain. A dash means that "
        "no candidate of some seed drops so much."
    )
    for task, about in TASKS.items():
        yield f"**{about.title}**"
        yield study_tables.degradation(results, task)
    yield "![Accuracy against blocks run, residual networks](study-accuracy.png)"


def shifted(results: Results) -> Iterator[str]:
    yield "### On other rows"
    yield (
        "The same routers, certified on familiar rows, of exit-aware networks. Each cell shows "
        "disagreement, then blocks run. *Held back* is the share of rows that the guard sends to "
        "full depth."
    )
    for task, about in TASKS.items():
        for connection in ("residual", "gated"):
            variant = about.base(connection, True)
            signals = ["norm", "confidence", "confidence, own heads"]
            signals += ["gate"] * (connection == "gated")
            yield f"**{about.title}: {variant.label}**"
            yield study_tables.off_manifold(results, task, variant, signals)
    yield "![Disagreement of certified routers on shifted rows](study-shifted.png)"


def summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean run rate at the certified ε, by task, network and what decides."""
    results = Results(cells)
    found: dict[str, Any] = {}
    for task in TASKS:
        for variant in base_variants(task):
            for what in study_tables.SIGNALS:
                rows = results.certified(task, variant, what=what, condition=FAMILIAR)
                if rows:
                    mean = interval([row["run_rate"] for row in rows]).mean
                    found.setdefault(f"{task}/{variant.key}", {})[what] = round(mean, 4)
    return {"run_rates": found}
