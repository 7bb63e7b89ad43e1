"""The verdict of an inspection: whether a router is worth it, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.intervals import percent, samples_needed, short_time, spelled
from skipserve.routing.judge import ByDepth
from skipserve.tasks import Unit

# A router is worth trying if the oracle, with the cost of decisions, saves at least this share
# of full-depth time beyond the best fixed depth.
WORTH = 0.1


@dataclass(frozen=True)
class Times:
    """Seconds that a block, and a decision, take for a lone row."""

    block_s: float
    decision_s: float


@dataclass(frozen=True)
class Prospect:
    """The most that a router could save, beside what a fixed depth saves.

    Attributes:
        depth: Blocks of the network.
        risk: ε, the rate of disagreement that is allowed.
        fixed: Fewest blocks that, run for every row, disagree at most at ε on these rows.
        fixed_disagreement: Rate at which that fixed depth disagrees.
        oracle: Mean blocks of an oracle that knows when each answer is that of full depth.
        staged: The same if it may stop only where a router would decide.
        asked: Mean decisions it takes there.
        times: Of a block and a decision.
        unit: What is counted.
    """

    depth: int
    risk: float
    fixed: int
    fixed_disagreement: float
    oracle: float
    staged: float
    asked: float
    times: Times
    unit: Unit = "rows"

    @property
    def gain(self) -> float:
        """Share of full depth's time that the oracle saves beyond the fixed depth."""
        saved_s = (self.fixed - self.staged) * self.times.block_s
        return (saved_s - self.asked * self.times.decision_s) / (self.depth * self.times.block_s)


def prospect(readings: ByDepth, decisions: Sequence[int], risk: float, times: Times) -> Prospect:
    """Measure the possible gain of a router.

    Args:
        readings: Answers by depth.
        decisions: Blocks run at each decision a router would take, among those that were read.
        risk: ε.
        times: Of a block and a decision.
    """
    agrees = readings.agrees
    disagreement = (~readings.counted).mean(axis=0)
    # Going up from full depth: the first depth that fails ends it, as in a certificate.
    fails = np.flatnonzero(disagreement > risk)
    shortest = int(fails[-1]) + 1 if len(fails) else 0
    depth = int(readings.blocks[-1])
    at = [int(np.searchsorted(readings.blocks, blocks)) for blocks in decisions]
    stops = np.append(agrees[:, at], np.ones((len(agrees), 1), dtype=bool), axis=1).argmax(axis=1)
    return Prospect(
        depth=depth,
        risk=risk,
        fixed=int(readings.blocks[shortest]),
        fixed_disagreement=float(disagreement[shortest]),
        oracle=float(readings.oracle.mean()),
        staged=float(np.array([*decisions, depth])[stops].mean()),
        asked=float(np.minimum(stops + 1, len(decisions)).mean()),
        times=times,
        unit=readings.unit,
    )


def hindrance(
    readings: ByDepth,
    labels: NDArray[np.int64] | None,
    risk: float,
    skippable: bool,
    one_answer: bool = False,
    confidence: float = 0.95,
) -> str:
    """Why a router is out of the question; empty if it is not.

    Args:
        readings: Answers by depth, judged by the labels if there are any.
        labels: The true ones.
        risk: ε.
        skippable: Whether rows may stop early.
        one_answer: Whether all rows are answered alike at full depth.
        confidence: 1 − δ.
    """
    count, counted = len(readings.counted), readings.unit
    if not skippable:
        return (
            "No: a plain network has nothing to skip, as leaving f(x) out loses x; train with "
            "connection = 'residual' or 'gated'."
        )
    if one_answer:
        return (
            f"No: the network gives all {len(readings.agrees)} rows the same answer, so every "
            "depth that gives it too is as good; bring rows of more than one class, or a network "
            "that tells them apart."
        )
    if labels is not None and readings.right is not None:
        accuracy, largest = float(readings.right[:, -1].mean()), _largest_share(labels)
        if accuracy <= largest:
            return (
                f"No: at full depth the network answers {accuracy:.1%} of the rows rightly, no "
                f"better than always naming the largest class ({largest:.1%}); train it first."
            )
    needed = samples_needed(risk, confidence)
    if count < needed:
        return (
            f"These {count} {counted} cannot tell: a risk of {percent(risk)} takes at least "
            f"{needed} {counted} at confidence {spelled(confidence)}; bring more, or "
            "ask for a larger --risk."
        )
    return ""


def sentence(found: Prospect) -> str:
    """The verdict: what a router could save, what a fixed depth saves, and the advice."""
    saves, fixed = 1 - found.oracle / found.depth, 1 - found.fixed / found.depth
    changed = "answers" if found.unit == "rows" else found.unit
    already = (
        f"stopping every row {after(found.fixed)} saves {fixed:.0%} already and changes "
        f"{found.fixed_disagreement:.2%} of the {changed} (allowed: {percent(found.risk)})"
        if found.fixed < found.depth
        else f"no fixed depth saves anything within a risk of {percent(found.risk)}"
    )
    return (
        f"A router could save at most {saves:.0%} of the blocks (the oracle runs "
        f"{found.oracle:.1f} of {found.depth} on average); {already}. {_advice(found)}"
    )


def after(blocks: int) -> str:
    """A depth in words."""
    return f"after block {blocks}" if blocks else "before the first block"


def _advice(found: Prospect) -> str:
    block, decision = map(short_time, (found.times.block_s, found.times.decision_s))
    if found.gain >= WORTH:
        return (
            f"Going on is worth it: a block takes {block} for one row and a decision about "
            f"{decision}, so the oracle would take {found.gain:.0%} of full depth's time less than "
            "the fixed depth; a real router gets a part of that."
        )
    if (found.fixed - found.oracle) / found.depth >= WORTH:
        return (
            f"Going on is not worth it: a block takes {block} for one row, a decision about "
            f"{decision}, so deciding costs what skipping saves; {_instead(found)}."
        )
    return (
        "Going on is not worth it: between the oracle and the fixed depth lies "
        f"{max(found.fixed - found.oracle, 0) / found.depth:.0%} of the blocks, and a real router "
        f"gets a part of that; {_instead(found)}."
    )


def _instead(found: Prospect) -> str:
    if found.fixed < found.depth:
        return f"cut the network off {after(found.fixed)} instead"
    return "train it to exit early first (exit_loss, layer_dropout in [training])"


def _largest_share(labels: NDArray[np.int64]) -> float:
    _, counts = np.unique(labels, axis=0, return_counts=True)
    return float(counts.max() / len(labels))
