"""An anytime-valid test of a certificate on evidence rows: a betting martingale.

Somebody bets on every evidence row against "it disagrees with probability at most ε", at odds that
are fair if the probability is ε. If every certificate holds, wealth is a supermartingale that
starts at 1, so the chance that it *ever* reaches 1 / α is at most α (Ville's inequality), however
often it is looked at (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", arXiv 2010.09686, sections 2 and 4; for 0/1 outcomes a bet is a likelihood ratio).

Two mixtures, each a supermartingale again, do without knowing how bad it will be and when:

- over bets "the rate is m × ε" for a few m. Their product over rows depends on the numbers of rows
  and disagreements alone, so workers may report in any order and in batches of any size;
- over the row at which the bettor starts: a share of the money is kept back for later. A bettor who
  started at row 1 is bankrupt after a day of good rows and would never notice a drift
  (Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532, restart it likewise).

docs/decisions/0020-alarm.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Wealth is shown up to here; a float would overflow after some hundreds of disagreements.
MOST = 1e12
# A start whose wealth has fallen below e^-60 is written off; that only makes the test more careful.
WRITTEN_OFF = -60.0


@dataclass(frozen=True)
class Bets:
    """What is bet on.

    Attributes:
        multiples: Rates bet on, in multiples of ε, above 1.
        shares: Of the money, one a multiple.
    """

    multiples: tuple[float, ...]
    shares: tuple[float, ...]


AGAINST = Bets((1.5, 2.5, 6.0), (0.2, 0.6, 0.2))


class Evidence:
    """Wealth of the bettor after the rows seen so far; the evidence against "rate ≤ ε".

    Args:
        risks: Certified ε; each row is tested against the one it was served at.
    """

    def __init__(self, risks: Sequence[float]) -> None:
        self._risks = tuple(risks)
        rates = np.outer(AGAINST.multiples, self._risks)
        # A multiple of a large ε must stay a probability.
        rates = np.minimum(rates, (1 + np.array(self._risks)) / 2)
        self._if_differs = np.log(rates / self._risks)  # [bets, risks]
        self._if_agrees = np.log((1 - rates) / (1 - np.array(self._risks)))
        self._log_shares = np.log(AGAINST.shares)
        # Far enough apart to be few, near enough that a drift costs little before the next one.
        self._spacing = 4 / min(self._risks, default=1.0)
        self._log_wealth = np.empty((0, len(AGAINST.multiples)))  # [starts, bets], per unit staked
        self._log_stakes = np.empty(0)
        self._starts = 0
        self.rows = 0
        self.disagreements = 0

    @property
    def wealth(self) -> float:
        """1 at the start; at most :data:`MOST`."""
        invested = self._log_wealth + self._log_shares + self._log_stakes[:, None]
        log_sum = float(np.logaddexp.reduce(invested, axis=None, initial=-np.inf))
        return min(_kept(self._starts) + math.exp(min(log_sum, 700.0)), MOST)

    def update(self, seen: Mapping[float, tuple[int, int]]) -> None:
        """Take in rows since the last update.

        Args:
            seen: Rows and disagreements among them, by ε.
        """
        rows = np.array([seen.get(risk, (0, 0))[0] for risk in self._risks])
        differ = np.array([seen.get(risk, (0, 0))[1] for risk in self._risks])
        if not rows.any() and not differ.any():
            return
        self._begin()
        agree = rows - differ
        self._log_wealth = self._log_wealth + self._if_differs @ differ + self._if_agrees @ agree
        self.rows += int(rows.sum())
        self.disagreements += int(differ.sum())
        worth = (self._log_wealth + self._log_stakes[:, None]).max(axis=1) > WRITTEN_OFF
        self._log_wealth, self._log_stakes = self._log_wealth[worth], self._log_stakes[worth]

    def _begin(self) -> None:
        # Decided by earlier rows alone: a bet must be made before its row is seen.
        if self.rows < self._starts * self._spacing:
            return
        self._starts += 1
        stake = math.log(_kept(self._starts - 1) - _kept(self._starts))
        self._log_stakes = np.append(self._log_stakes, stake)
        self._log_wealth = np.vstack([self._log_wealth, np.zeros_like(self._log_shares)])


def _kept(starts: int) -> float:
    # Share of the money for starts to come; falls slowly, so that late ones are not beggared.
    return 1 / (1 + math.log(1 + starts))
