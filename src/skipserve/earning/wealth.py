"""What counts prove: wealth of a bettor against "the risk is at least ε".

Somebody bets on every evidence row that candidate k disagrees less often than ε, at odds that are
fair if its risk is ε. While the risk is ε or more, the wealth is a supermartingale that starts at
1, so the chance that it *ever* reaches 1 / δ is at most δ (Ville's inequality), however often it is
looked at. The money is spread over eleven rates below ε; each bet is a likelihood ratio, and their
product depends on the numbers of rows and disagreements alone.

A bet is the same from the first row to the last, so by the concavity of the logarithm what is
bounded is the average over the rows of their conditional risks, if those change.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rates bet on, as shares of ε, each with the same part of the money.
SHARES_OF_RISK = np.linspace(0.02, 0.9, 11)


def log_wealth(rows: ArrayLike, disagreements: ArrayLike, risk: ArrayLike) -> NDArray[np.float64]:
    """Natural logarithm of the wealth against "risk ≥ ε"; 0 before the first row.

    The arguments are broadcast against each other, so candidates, risks and streams may each be an
    axis.

    Args:
        rows: Evidence rows seen.
        disagreements: Among them.
        risk: ε, in (0, 1).
    """
    differ = np.asarray(disagreements, dtype=np.float64)[..., None]
    agree = np.asarray(rows, dtype=np.float64)[..., None] - differ
    bound = np.asarray(risk, dtype=np.float64)[..., None]
    if_agrees = np.log1p(-SHARES_OF_RISK * bound) - np.log1p(-bound)
    bets = differ * np.log(SHARES_OF_RISK) + agree * if_agrees
    wealth: NDArray[np.float64] = np.logaddexp.reduce(bets, axis=-1) - math.log(len(SHARES_OF_RISK))
    return wealth


def level_of(epoch: int, level: float) -> float:
    """The share of δ that an epoch may err with, ``δ · 6 / (π² j²)``; all together add up to δ.

    Args:
        epoch: From 1.
        level: δ of all epochs together.
    """
    return level * 6 / (math.pi * epoch) ** 2
