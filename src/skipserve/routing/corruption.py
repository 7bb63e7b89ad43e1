"""Kinds of corruption: each changes one input of some rows.

Numbers are amounts: measurements, signals, pixels. Tokens are names: words, characters, categories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator
Corrupt = Callable[[NDArray[Any], "Tensor", Generator], NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """Statistics of one input.

    Attributes:
        deviation: Standard deviation of what it holds.
        low: Least of that.
        high: Greatest of that.
        real: Which positions of the rows at hand are no padding [N, length] bool; ``None``: all.
    """

    deviation: float
    low: float
    high: float
    real: NDArray[np.bool_] | None = None


def _spread(x: NDArray[Any], random: Generator) -> NDArray[np.float32]:
    return random.standard_normal(x.shape, dtype=np.float32)


def _column(x: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float32]:
    return values.reshape(-1, *[1] * (x.ndim - 1)).astype(np.float32)


def noise(share: float) -> Corrupt:
    """Normal noise with a deviation of ``share`` standard deviations."""
    return lambda x, about, random: x + share * about.deviation * _spread(x, random)


def multiplied(factor: float) -> Corrupt:
    """Every number multiplied by a factor."""
    return lambda x, about, random: x * np.float32(factor)


def mixed(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Two rows averaged, 0.6 to 0.4."""
    return 0.6 * x + 0.4 * x[random.permutation(len(x))]


def signs(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """A random sign for each row, and noise of half a deviation."""
    sign = _column(x, random.choice([-1.0, 1.0], len(x)))
    return noise(0.5)(x * sign, about, random)


def shuffled(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """The numbers of each row in random order."""
    flat = x.reshape(len(x), -1)
    return random.permuted(flat, axis=1).reshape(x.shape)


def pure_noise(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Pure noise, as wide as the data."""
    centre = np.float32((about.low + about.high) / 2)
    return centre + about.deviation * _spread(x, random)


def constant(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Constant rows: one number each, with the ends of the range among them."""
    values = random.uniform(about.low, about.high, len(x))
    values[::4] = about.low
    values[1::4] = about.high
    return np.broadcast_to(_column(x, values), x.shape).astype(np.float32)


# Corruptions for stress tests; hard ones must be held back or answered as at full depth.
HARD: dict[str, Corrupt] = {
    "noise 0.5": noise(0.5),
    "scaled by 2": multiplied(2),
    "sign and noise 0.5": signs,
    "positions shuffled": shuffled,
    "pure noise": pure_noise,
    "constants": constant,
}
MILD: dict[str, Corrupt] = {"noise 0.2": noise(0.2), "noise 0.3": noise(0.3), "two mixed": mixed}


def random_tokens(share: float) -> Corrupt:
    """A share of the tokens replaced by random ones."""

    def corrupt(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
        other = random.integers(int(about.low), int(about.high) + 1, x.shape).astype(x.dtype)
        return np.where(random.random(x.shape) < share, other, x)

    return corrupt


def shuffled_tokens(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """The real tokens of each row in random order; the first stays."""
    out = x.copy()
    if x.ndim == 1:
        return out
    for row in range(len(x)):
        length = x.shape[1] if about.real is None else int(about.real[row].sum())
        out[row, 1:length] = random.permutation(x[row, 1:length])
    return out


def one_token(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """One token everywhere."""
    value = random.integers(int(about.low), int(about.high) + 1, len(x)).astype(x.dtype)
    return np.broadcast_to(value.reshape(-1, *[1] * (x.ndim - 1)), x.shape).copy()


HARD_TOKENS: dict[str, Corrupt] = {
    "random tokens": random_tokens(1.0),
    "half the tokens random": random_tokens(0.5),
    "one token": one_token,
}
MILD_TOKENS: dict[str, Corrupt] = {
    "a tenth of the tokens random": random_tokens(0.1),
    "tokens shuffled": shuffled_tokens,
}


# For exit heads, of any strength each.
def some_noise(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Normal noise of up to 0.6 deviations."""
    share = _column(x, random.random(len(x)) * 0.6)
    noisy: NDArray[Any] = x + share * about.deviation * _spread(x, random)
    return noisy


def some_mix(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Two rows averaged, a half to all of the first."""
    share = _column(x, random.uniform(0.5, 1.0, len(x)))
    mixture: NDArray[Any] = share * x + (1 - share) * x[random.permutation(len(x))]
    return mixture


def some_scale(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """Every number multiplied by 0.3 to 2.3."""
    return x * _column(x, random.uniform(0.3, 2.3, len(x)))
