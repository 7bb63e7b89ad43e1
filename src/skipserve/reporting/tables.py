"""Tables of a report from the manifest: exits, stress, parity."""

from __future__ import annotations

from skipserve.reporting.report import Findings
from skipserve.routing.stress import FEWEST_HELD, MOST_DISAGREE

Row = tuple[str, ...]


def exit_rows(found: Findings) -> list[Row]:
    """Rows of the table of exits: depth, features, hidden width, and what may happen there."""
    spec = None if found.engine is None else found.engine.manifest.router
    if spec is None:
        return []
    lines: list[Row] = []
    for one in spec.exits:
        head = "the network's own" if one.hidden is None else f"{one.hidden} hidden"
        if one.hidden == 0:
            head = "linear"
        what = "rows may leave" if spec.policy == "exit" else "rows may leave out what follows"
        if not one.leaves:
            head, what = "–", "only guards"
        lines.append((str(one.blocks), f"{one.features:,}", head, what))
    return lines


def stress_rows(found: Findings) -> list[Row]:
    """Kind of corruption, disagreement, run rate, rows held back, and whether that passes."""
    spec = None if found.engine is None else found.engine.manifest.router
    lines: list[Row] = []
    for one in () if spec is None else spec.stress:
        passes = one.disagreement <= MOST_DISAGREE or one.held_back >= FEWEST_HELD
        said = ("passes" if passes else "fails") if one.hard else "mild"
        rates = (f"{rate:.1%}" for rate in (one.disagreement, one.run_rate, one.held_back))
        lines.append((one.kind, *rates, said))
    return lines


def parity_rows(found: Findings) -> list[Row]:
    """Format, precision, largest difference, what is allowed, other answers, equal decisions."""
    lines: list[Row] = []
    for one in () if found.model.artifact is None else found.model.artifact.manifest.parity:
        differs = "–" if one.disagreement is None else f"{one.disagreement:.2%}"
        equal = "–"
        if one.decisions is not None:
            equal = f"{one.decisions.equal:.2%} of {one.decisions.rows:,}"
        # What INT8 changes is counted; no difference is promised.
        allowed = f"{one.tolerance:g}" if one.precision != "int8" else "–"
        difference = f"{one.largest_difference:.1e}"
        lines.append((one.format, one.precision, difference, allowed, differs, equal))
    return lines
