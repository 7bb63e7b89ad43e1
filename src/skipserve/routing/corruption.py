"""Corrupted copies of rows, for fitting exit heads and for stress tests.

A head that has seen corrupted rows does half the harm off the manifold (docs/any-network.md). The
full-depth answer is the target, so such rows cost no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows

Generator = np.random.Generator
Corrupt = Callable[[NDArray[Any], "Tensor", Generator], NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """Statistics of one input.

    Attributes:
        deviation: Standard deviation of its numbers.
        low: Least of them.
        high: Greatest of them.
        mask: Which positions are real [N, length] bool, for tokens; ``None``: all.
    """

    deviation: float
    low: float
    high: float
    mask: NDArray[np.bool_] | None = None


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


# For token ids. Foreign tokens are those that the data never holds.
def random_tokens(share: float) -> Corrupt:
    """A share of the tokens replaced by random ones."""

    def corrupt(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
        other = random.integers(int(about.low), int(about.high) + 1, x.shape).astype(x.dtype)
        return np.where(random.random(x.shape) < share, other, x)

    return corrupt


def shuffled_tokens(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """The real tokens of each row in random order; the first stays."""
    out = x.copy()
    for row in range(len(x)):
        length = x.shape[1] if about.mask is None else int(about.mask[row].sum())
        out[row, 1:length] = random.permutation(x[row, 1:length])
    return out


def one_token(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
    """One token everywhere."""
    value = random.integers(int(about.low), int(about.high) + 1, (len(x), 1)).astype(x.dtype)
    return np.broadcast_to(value, x.shape).copy()


HARD_TOKENS: dict[str, Corrupt] = {
    "random tokens": random_tokens(1.0),
    "half the tokens random": random_tokens(0.5),
    "one token": one_token,
}
MILD_TOKENS: dict[str, Corrupt] = {
    "a tenth of the tokens random": random_tokens(0.1),
    "tokens shuffled": shuffled_tokens,
}


def about(rows: Rows, mask: str | None) -> dict[str, Tensor]:
    """Statistics of each input of some rows."""
    real = rows.tensors[mask].astype(bool) if mask else None
    found = {}
    for name, x in rows.tensors.items():
        if name == mask:
            continue
        kept = x[real] if real is not None and x.shape[:2] == real.shape else x
        found[name] = Tensor(float(kept.std()), float(kept.min()), float(kept.max()), real)
    return found


def kinds(rows: Rows, mask: str | None) -> tuple[dict[str, Corrupt], dict[str, Corrupt]]:
    """Hard and mild corruptions that fit the inputs of a model."""
    main = next(x for name, x in rows.tensors.items() if name != mask)
    if main.dtype.kind == "f":
        return HARD, MILD
    return HARD_TOKENS, MILD_TOKENS


def corrupt(
    rows: Rows, kind: Corrupt, known: Mapping[str, Tensor], mask: str | None, random: Generator
) -> Rows:
    """A corrupted copy: of the float inputs if there are any, else of the tokens."""
    floats = any(x.dtype.kind == "f" for name, x in rows.tensors.items() if name != mask)
    tensors = {}
    for name, x in rows.tensors.items():
        fits = name != mask and (x.dtype.kind == "f" or (not floats and _is_token_ids(x)))
        tensors[name] = x
        if fits:
            one = Tensor(
                known[name].deviation, known[name].low, known[name].high, _real(rows, mask)
            )
            tensors[name] = kind(x, one, random).astype(x.dtype)
    return Rows(tensors)


def _is_token_ids(x: NDArray[Any]) -> bool:
    # Segment numbers and positions are integers too; they stay as they are.
    return x.dtype.kind in "iu" and x.ndim == 2 and int(x.max()) > 100


def _real(rows: Rows, mask: str | None) -> NDArray[np.bool_] | None:
    return rows.tensors[mask].astype(bool) if mask else None


def for_fitting(rows: Rows, mask: str | None, random: Generator) -> list[Rows]:
    """Corrupted copies for fitting exit heads, more than two for each row.

    Noise of up to 0.6 deviations, mixtures of two, scaling from 0.3 to 2.3 and constants; for
    tokens a random share of them replaced.
    """
    known, count = about(rows, mask), len(rows)
    main = next(x for name, x in rows.tensors.items() if name != mask)
    if main.dtype.kind != "f":
        shares = [random_tokens(share) for share in (0.1, 0.3, 0.6, 1.0)]
        parts = [rows[part] for part in np.array_split(random.permutation(count), len(shares))]
        made = [
            corrupt(part, share, known, mask, random)
            for part, share in zip(parts, shares, strict=True)
            if len(part)
        ]
        return [*made, corrupt(rows[: max(1, count // 10)], one_token, known, mask, random)]

    def some_noise(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
        share = _column(x, random.random(len(x)) * 0.6)
        noisy: NDArray[Any] = x + share * about.deviation * _spread(x, random)
        return noisy

    def some_mix(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
        share = _column(x, random.uniform(0.5, 1.0, len(x)))
        mixture: NDArray[Any] = share * x + (1 - share) * x[random.permutation(len(x))]
        return mixture

    def some_scale(x: NDArray[Any], about: Tensor, random: Generator) -> NDArray[Any]:
        return x * _column(x, random.uniform(0.3, 2.3, len(x)))

    plan = ((some_noise, count), (some_mix, count), (some_scale, count * 3 // 10))
    made = [corrupt(rows[: max(1, n)], kind, known, mask, random) for kind, n in plan]
    return [*made, corrupt(rows[: max(1, count // 10)], constant, known, mask, random)]
