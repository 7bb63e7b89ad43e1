"""Streams of evidence rows by the ten thousand: what is earned on them, and what is withdrawn.

All arrays have one entry a stream. Wealth grows with every row that agrees and falls with every one
that does not, so a candidate with d disagreements has crossed once the rows reach ``needed[d]``, a
table made with `skipserve.earning.wealth`; no wealth is computed while streams run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.earning.wealth import level_of, log_wealth
from skipserve.safety.alarm import AGAINST

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


# Of rows, disagreements and ε, as `skipserve.earning.wealth.log_wealth`.
Wealth = Callable[[Ints, Ints, float], Floats]


def rows_needed(risk: float, level: float, most: int, wealth: Wealth = log_wealth) -> Ints:
    """Fewest rows that prove "below ``risk``" with 0, 1, … ``most`` disagreements [most + 1]."""
    differ = np.arange(most + 1)
    goal = math.log(1 / level)
    low, high = differ.copy(), np.full(most + 1, 1)
    while (short := wealth(high, differ, risk) < goal).any():
        high = np.where(short, 2 * high + differ, high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        falls_short = wealth(middle, differ, risk) < goal
        low, high = np.where(falls_short, middle, low), np.where(falls_short, high, middle)
    return high


def ever_crosses(
    rng: np.random.Generator,
    rate: float,
    risk: float,
    delta: float,
    rows: int,
    epoch_rows: int,
    streams: int,
) -> NDArray[np.bool_]:
    """Whether a candidate of one true rate is ever earned, looked at after every row [streams].

    Exact: wealth is greatest just before a disagreement, so it is enough to look there and at the
    end of an epoch; the rows between two disagreements are geometric.

    Args:
        rng: Draws the streams.
        rate: Of disagreement, every row alike.
        risk: ε.
        delta: Of all epochs together.
        rows: Evidence rows of a stream.
        epoch_rows: Of an epoch.
        streams: How many.
    """
    mean = epoch_rows * rate
    most = int(mean + 8 * math.sqrt(mean) + 20)
    crossed = np.zeros(streams, dtype=bool)
    for epoch in range(1, rows // epoch_rows + 1):
        needed = rows_needed(risk, level_of(epoch, delta), most)
        # The place of each disagreement in the epoch, from 1.
        places = rng.geometric(rate, (streams, most + 1)).cumsum(axis=1)
        crossed |= (np.minimum(places - 1, epoch_rows) >= needed).any(axis=1)
    return crossed


@dataclass(frozen=True)
class Rows:
    """What the candidates do to rows, as rows are drawn from.

    Attributes:
        losses: Whether a candidate disagrees on a row of a kind [kinds, candidates].
        shares: Of the kinds [kinds].
        run_rate: Of each candidate [candidates].
    """

    losses: NDArray[np.bool_]
    shares: Floats
    run_rate: Floats

    @property
    def risks(self) -> Floats:
        """True ones [candidates]."""
        return self.shares @ self.losses

    @staticmethod
    def seen(disagrees: NDArray[np.bool_], run_rate: Floats) -> Rows:
        """Rows drawn with replacement from real ones.

        Args:
            disagrees: Of each candidate on each row [candidates, N].
            run_rate: Of each candidate [candidates].
        """
        losses, counts = np.unique(disagrees.T, axis=0, return_counts=True)
        return Rows(losses, counts / counts.sum(), run_rate)

    @staticmethod
    def nested(risks: Floats, run_rate: Floats) -> Rows:
        """Rows on which bolder candidates disagree wherever more careful ones do.

        Args:
            risks: Increasing [candidates].
            run_rate: Of each candidate [candidates].
        """
        losses = np.triu(np.ones((len(risks) + 1, len(risks)), dtype=bool))
        return Rows(losses, np.diff(np.concatenate([[0.0], risks, [1.0]])), run_rate)

    def first(self, candidates: int) -> Rows:
        """The same with some of the candidates."""
        return Rows(self.losses[:, :candidates], self.shares, self.run_rate[:candidates])


def earned_after(
    rng: np.random.Generator,
    of: Rows,
    risk: float,
    level: float,
    rows: int,
    streams: int,
    wealth: Wealth = log_wealth,
) -> tuple[Ints, Ints]:
    """What is earned in one epoch, looked at after every row; exact, as :func:`ever_crosses`.

    Args:
        rng: Draws the streams.
        of: What rows are drawn from.
        risk: ε.
        level: δ of the epoch.
        rows: Evidence rows.
        streams: How many.
        wealth: What the bets make of counts.

    Returns:
        The number of candidates earned [streams], and disagreements at the end [streams,
        candidates].
    """
    some = of.losses.any(axis=1)
    rate = float(of.shares[some].sum())
    mean = rows * rate
    most = int(mean + 8 * math.sqrt(mean) + 20)
    needed = rows_needed(risk, level, most, wealth)
    kinds = rng.choice(np.flatnonzero(some), (streams, most), p=of.shares[some] / rate)
    places = rng.geometric(rate, (streams, most)).cumsum(axis=1)
    differ = np.cumsum(of.losses[kinds], axis=1, dtype=np.int16)
    before = np.concatenate([np.zeros_like(differ[:, :1]), differ[:, :-1]], axis=1)
    seen = np.minimum(places - 1, rows)
    # A look beyond the last row is one at the last row, with what had disagreed until there.
    crossed = (seen[:, :, None] >= needed[before]).any(axis=1)
    last = (places <= rows).sum(axis=1)
    at_end = np.where(last[:, None] > 0, differ[np.arange(streams), last - 1], 0)
    return np.logical_and.accumulate(crossed, axis=1).sum(axis=1), at_end.astype(np.int64)


class Alarms:
    """`skipserve.safety.alarm.Evidence` for many streams of one ε at once.

    Args:
        risk: ε.
        streams: How many.
    """

    def __init__(self, risk: float, streams: int) -> None:
        rates = np.minimum(np.array(AGAINST.multiples) * risk, (1 + risk) / 2)
        self._if_differs = np.log(rates / risk)
        self._if_agrees = np.log((1 - rates) / (1 - risk))
        self._shares = np.array(AGAINST.shares)
        self._spacing = 4 / risk
        self._log_wealth = np.zeros((streams, 0, len(rates)))
        self._stakes = np.zeros(0)
        self.rows = np.zeros(streams, dtype=np.int64)
        self._starts = np.zeros(streams, dtype=np.int64)

    def forget(self, which: NDArray[np.bool_]) -> None:
        """Begin anew in some streams."""
        self.rows[which] = self._starts[which] = 0
        self._log_wealth[which] = -np.inf

    def update(self, rows: Ints, differ: Ints) -> Floats:
        """Take in rows since the last update; the wealth after them [streams]."""
        begins = (rows > 0) & (self.rows >= self._starts * self._spacing)
        if begins.any():
            place = self._starts[begins]
            if place.max() >= len(self._stakes):
                more = np.full_like(self._log_wealth[:, :1], -np.inf)
                if not len(self._stakes):
                    more = np.full((len(rows), 1, len(self._shares)), -np.inf)
                self._log_wealth = np.concatenate([self._log_wealth, more], axis=1)
                self._stakes = np.append(
                    self._stakes, _kept(len(self._stakes)) - _kept(len(self._stakes) + 1)
                )
            self._log_wealth[begins, place] = 0.0
            self._starts[begins] += 1
        step = differ[:, None] * self._if_differs + (rows - differ)[:, None] * self._if_agrees
        self._log_wealth += step[:, None, :]
        self.rows += rows
        invested = np.exp(np.minimum(self._log_wealth, 50)) @ self._shares @ self._stakes
        return np.asarray(_kept(self._starts) + invested)


def _kept(starts: Ints | int) -> Floats:
    return np.asarray(1 / (1 + np.log1p(starts)))


def rows_to_earn(
    rng: np.random.Generator,
    rate: float,
    risk: float,
    level: float,
    most: int,
    streams: int,
    wealth: Wealth = log_wealth,
) -> Floats:
    """Rows after which a candidate is earned, looked at after every row [streams]; else infinity.

    Args:
        rng: Draws the streams.
        rate: Of disagreement, every row alike.
        risk: ε.
        level: δ of the epoch.
        most: Rows after which the epoch ends.
        streams: How many.
        wealth: What the bets make of counts.
    """
    events = int(most * rate + 8 * math.sqrt(most * rate) + 20)
    needed = rows_needed(risk, level, events, wealth)
    places = rng.geometric(rate, (streams, events + 1)).cumsum(axis=1)
    so_far = np.concatenate([np.zeros_like(places[:, :1]), places[:, :-1]], axis=1)
    reached = np.maximum(needed, so_far)
    found = np.where((reached < places) & (reached <= most), reached, np.inf)
    return np.asarray(found.min(axis=1))
