"""Proposing: thresholds ordered from careful to bold. Anything goes; nothing is promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import disagreements, first_stop

CANDIDATES = 20
# Rates of disagreement among the rows that leave at one decision.
CAREFUL, BOLD = 1e-3, 0.15
# So many rates span them all, whatever is to be certified.
COARSE = 8
# Shares of each risk at which candidates stand close: the boldest that is certified disagrees on
# somewhat less than the risk, and each step between neighbours costs blocks.
NEAR = (0.5, 0.64, 0.75, 0.84, 0.92)
RISKS = (0.005, 0.01, 0.02, 0.05)
# Shares of the rows that leave a stage out, in the first candidates of the policy ``skip``.
FEW = (0.005, 0.02, 0.08, 0.3)

Thresholds = NDArray[np.float32]


@dataclass(frozen=True)
class Observations:
    """What a router would see of rows that all got to the end.

    Attributes:
        blocks: Blocks run at each decision, and at full depth [decisions + 1], int64.
        signal: [N, decisions], float32.
        agrees: Whether a row that leaves there is answered as at full depth [N, decisions].
        inside: Whether it was inside every guard up to there [N, decisions].
    """

    blocks: NDArray[np.int64]
    signal: NDArray[np.float32]
    agrees: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    def only(self, decisions: Sequence[int]) -> Observations:
        """The same with some of the decisions."""
        columns = list(decisions)
        return Observations(
            self.blocks[[*columns, -1]],
            self.signal[:, columns],
            self.agrees[:, columns],
            self.inside[:, columns],
        )


def propose(observed: Observations, risks: Sequence[float] = RISKS) -> list[Thresholds]:
    """Candidates for the policy ``exit``, from careful to bold.

    Args:
        observed: On rows that are not used to certify.
        risks: The ε that shall be certified; most candidates stand just below them.

    Returns:
        At most 8 + 5 × risks vectors [decisions], float32; +inf never lets a row leave.
    """
    near = [risk * share for risk in risks for share in NEAR]
    rates = sorted({*np.geomspace(CAREFUL, BOLD, COARSE).tolist(), *near})
    # One that disagrees more must run less, or nobody would want it.
    outcomes = [
        (*simulate(one, observed), one) for one in (greedy(observed, rate) for rate in rates)
    ]
    kept: list[Thresholds] = []
    least = float("inf")
    for _, depth, one in sorted(outcomes, key=lambda outcome: outcome[:2]):
        if depth < least:
            kept.append(one)
            least = depth
    return kept


def propose_skips(signal: NDArray[np.float32], agrees: NDArray[np.bool_]) -> list[Thresholds]:
    """Candidates for the policy ``skip``, from careful to bold.

    Args:
        signal: Before each stage [N, decisions].
        agrees: Whether the answer stays if this stage alone is left out [N, decisions].
    """
    rates = np.geomspace(CAREFUL, BOLD, CANDIDATES - len(FEW))
    pairs = list(zip(signal.T, agrees.T, strict=True))
    found = [
        np.array([_lowest(values, right, rate) for values, right in pairs], np.float32)
        for rate in rates
    ]
    # Stages left out together may err where none does alone: begin with few of the rows.
    few = [np.maximum(found[0], np.quantile(signal, 1 - share, axis=0)) for share in FEW]
    return [np.array(one, np.float32) for one in dict.fromkeys(map(tuple, [*few, *found]))]


def greedy(observed: Observations, rate: float) -> Thresholds:
    """Going down the depths, the lowest threshold whose leavers disagree at most at ``rate``."""
    stays = np.ones(len(observed.signal), dtype=bool)
    thresholds = np.full(observed.signal.shape[1], np.inf, dtype=np.float32)
    for decision, values in enumerate(observed.signal.T):
        may = stays & observed.inside[:, decision] & np.isfinite(values)
        if may.any():
            thresholds[decision] = _lowest(values[may], observed.agrees[may, decision], rate)
            stays &= ~(may & (values >= thresholds[decision]))
    return thresholds


def _lowest(values: NDArray[np.float32], right: NDArray[np.bool_], rate: float) -> float:
    """The lowest threshold [N] at which at most ``rate`` of the rows that reach it are wrong."""
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~right[order])
    allowed = wrong <= rate * np.arange(1, len(order) + 1)
    # Equal signals leave together or not at all.
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    fits = np.flatnonzero(allowed & last_of_ties)
    return float(values[order[fits[-1]]]) if len(fits) else float("inf")


def where_rows_leave(thresholds: Thresholds, observed: Observations) -> NDArray[np.int64]:
    """The decision at which each row leaves [N]; the number of decisions if it runs everything."""
    return first_stop(observed.signal, thresholds, observed.inside)


def simulate(thresholds: Thresholds, observed: Observations) -> tuple[float, float]:
    """Rate of disagreement and mean depth of the ``exit`` policy."""
    where = where_rows_leave(thresholds, observed)
    wrong = disagreements(observed.agrees, where)
    return float(wrong.mean()), float(observed.blocks[where].mean())
