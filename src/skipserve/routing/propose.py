"""Proposing thresholds from careful to bold; only certification promises anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.config import RISKS
from skipserve.routing.stopping import disagreements, first_stop

CANDIDATES = 20
# Rates of disagreement among the rows that leave at one decision.
CAREFUL, BOLD = 1e-3, 0.15
# So many rates span them all, whatever is to be certified.
COARSE = 8
# Shares of each risk at which candidates stand close: the boldest that is certified disagrees on
# somewhat less than the risk, and each step between neighbours costs blocks.
NEAR = (0.5, 0.64, 0.75, 0.84, 0.92)
# Shares of the rows that leave a stage out, in the first candidates of the policy ``skip``.
FEW = (0.005, 0.02, 0.08, 0.3)

# Rates of rows, least, largest and how many, where rows are counted together: of a hundred ranked
# for one query most may be far off before it shows, or one may be enough.
ROW_RATES = (1e-4, 0.9, 48)

Thresholds = NDArray[np.float32]
# The decision at which each row stops [N].
Stops = NDArray[np.int64]


@dataclass(frozen=True)
class Observations:
    """Observations of rows that run everything.

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
        """The same observations with some of the decisions."""
        columns = list(decisions)
        return Observations(
            self.blocks[[*columns, -1]],
            self.signal[:, columns],
            self.agrees[:, columns],
            self.inside[:, columns],
        )


def propose(
    observed: Observations, risks: Sequence[float] = RISKS, doubt: float = 0.0
) -> list[Thresholds]:
    """Candidates for the policy ``exit``, from careful to bold.

    Args:
        observed: On rows that are not used to certify.
        risks: The ε that shall be certified; most candidates stand just below them.
        doubt: As for :func:`greedy`.

    Returns:
        At most 8 + 5 × risks vectors [decisions], float32; +inf never lets a row leave.
    """
    found = [greedy(observed, rate, doubt) for rate in _wanted(risks)]
    return [one for _, one in _useful([(*simulate(one, observed), one) for one in found])]


def propose_for_units(
    observed: Observations, risks: Sequence[float], judge: Callable[[Stops], float]
) -> list[Thresholds]:
    """The same where rows are counted together: their own disagreement does not say the rate.

    Thresholds are searched at many rates of single rows. Of those, one stands at every rate of
    units at which :func:`propose` would put one.

    Args:
        observed: On rows that are not used to certify; a row agrees where its leaving alone changes
            nothing.
        risks: The ε that shall be certified.
        judge: The rate of disagreement of units whose rows stop at given decisions [N].
    """
    outcomes = []
    for rate in np.geomspace(*ROW_RATES).tolist():
        one = greedy(observed, rate)
        where = where_rows_leave(one, observed)
        outcomes.append((judge(where), float(observed.blocks[where].mean()), one))
    useful = _useful(outcomes)
    places = {sum(rate <= wanted for rate, _ in useful) - 1 for wanted in _wanted(risks)}
    # One that is too bold for every rate tells how far it is; without any there is nothing to test.
    return [useful[place][1] for place in sorted(places - {-1} or {0})]


def _wanted(risks: Sequence[float]) -> list[float]:
    """The rates of disagreement at which candidates shall stand, rising."""
    near = [risk * share for risk in risks for share in NEAR]
    return sorted({*np.geomspace(CAREFUL, BOLD, COARSE).tolist(), *near})


def _useful(
    outcomes: Sequence[tuple[float, float, Thresholds]],
) -> list[tuple[float, Thresholds]]:
    """From careful to bold; one that disagrees more must run fewer blocks to be useful.

    Args:
        outcomes: Rate of disagreement, mean depth and thresholds of each.
    """
    kept: list[tuple[float, Thresholds]] = []
    least = float("inf")
    for rate, depth, one in sorted(outcomes, key=lambda outcome: outcome[:2]):
        if depth < least:
            kept.append((rate, one))
            least = depth
    return kept


def propose_skips(signal: NDArray[np.float32], agrees: NDArray[np.bool_]) -> list[Thresholds]:
    """Candidates for the policy ``skip``, from careful to bold.

    Args:
        signal: Before each stage [N, decisions]; a row whose signal overflows runs that stage.
        agrees: Whether the answer stays if this stage alone is left out [N, decisions].
    """
    rates = np.geomspace(CAREFUL, BOLD, CANDIDATES - len(FEW))
    known = [np.isfinite(values) for values in signal.T]
    pairs = [
        (values[some], right[some])
        for values, right, some in zip(signal.T, agrees.T, known, strict=True)
    ]
    found = [
        np.array([_lowest(values, right, rate) for values, right in pairs], np.float32)
        for rate in rates
    ]
    # Stages left out together may err where none does alone: begin with few of the rows.
    few = [
        np.maximum(
            found[0],
            [np.quantile(one, 1 - share) if len(one) else np.inf for one, _ in pairs],
        )
        for share in FEW
    ]
    return [np.array(one, np.float32) for one in dict.fromkeys(map(tuple, [*few, *found]))]


def greedy(observed: Observations, rate: float, doubt: float = 0.0) -> Thresholds:
    """By depth, the lowest threshold at which leaving rows disagree at most at ``rate``.

    Args:
        observed: On rows that are not used to certify.
        rate: Of disagreement.
        doubt: Disagreements that are added to those observed, because few rows may be lucky.
    """
    stays = np.ones(len(observed.signal), dtype=bool)
    thresholds = np.full(observed.signal.shape[1], np.inf, dtype=np.float32)
    for decision, values in enumerate(observed.signal.T):
        may = stays & observed.inside[:, decision] & np.isfinite(values)
        if may.any():
            agrees = observed.agrees[may, decision]
            thresholds[decision] = _lowest(values[may], agrees, rate, doubt)
            stays &= ~(may & (values >= thresholds[decision]))
    return thresholds


def _lowest(
    values: NDArray[np.float32], right: NDArray[np.bool_], rate: float, doubt: float = 0.0
) -> float:
    """The lowest threshold [N] at which at most ``rate`` of the rows that reach it are wrong."""
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~right[order])
    allowed = wrong + doubt <= rate * np.arange(1, len(order) + 1)
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
