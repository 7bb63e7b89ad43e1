"""Corrupted copies of rows, for fitting exit heads and for stress tests.

A head that has seen corrupted rows does half the harm off the manifold (docs/any-network.md). The
full-depth answer is the target, so such rows cost no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.corruption import (
    HARD,
    HARD_TOKENS,
    MILD,
    MILD_TOKENS,
    Corrupt,
    Generator,
    Tensor,
    constant,
    one_token,
    random_tokens,
    some_mix,
    some_noise,
    some_scale,
)
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature

# Rows that are compared at once: of pictures all would take gigabytes.
PART = 256


@dataclass(frozen=True)
class Corruptible:
    """The inputs of a model that are corrupted: those that hold what a row is about.

    Masks, segments and positions stay as they are. Where a model takes numbers and tokens, the
    numbers are corrupted.

    Attributes:
        tokens: Whether they are tokens; else they are numbers.
        inputs: What is known of each, by name; none if nothing differs from row to row.
        mask: The input that says which positions are real, or ``None``.
    """

    tokens: bool
    inputs: Mapping[str, Tensor]
    mask: str | None

    @classmethod
    def of(cls, rows: Rows, signature: Signature) -> Corruptible:
        """Choose the inputs by what some rows hold.

        Args:
            rows: Ordinary ones.
            signature: Of the model.
        """
        mask = signature.mask
        groups = _groups(rows, signature)
        for tokens, names in (*_telling(groups, rows, mask), *groups):
            varying = [name for name in names if _varies(rows, name, mask)]
            if varying:
                known = {name: _statistics(rows, name, mask) for name in varying}
                return cls(tokens, known, mask)
        return cls(False, {}, mask)

    @property
    def hard(self) -> dict[str, Corrupt]:
        """Kinds by which the first exit is placed."""
        return HARD_TOKENS if self.tokens else HARD

    @property
    def mild(self) -> dict[str, Corrupt]:
        """Kinds that are reported alone."""
        return MILD_TOKENS if self.tokens else MILD

    def copy(self, rows: Rows, kind: Corrupt, random: Generator) -> Rows:
        """A corrupted copy of rows.

        Whole numbers stay whole, and between the least and the greatest of the ordinary rows.
        """
        tensors = dict(rows.tensors)
        for name, known in self.inputs.items():
            x = rows.tensors[name]
            here = replace(known, real=_real(rows, name, self.mask))
            if self.tokens or x.dtype.kind == "f":
                tensors[name] = kind(x, here, random).astype(x.dtype)
                continue
            made = kind(x.astype(np.float32), here, random)
            tensors[name] = np.rint(made).clip(known.low, known.high).astype(x.dtype)
        return Rows(tensors)

    def changed(self, rows: Rows, copy: Rows) -> NDArray[np.bool_]:
        """Which rows of a copy are others [N]; an input of one number has no other order."""
        changed = np.zeros(len(rows), dtype=bool)
        for name in self.inputs:
            differs = rows.tensors[name] != copy.tensors[name]
            changed |= differs.reshape(len(rows), -1).any(axis=1)
        return changed

    def for_fitting(self, rows: Rows, random: Generator) -> list[Rows]:
        """Corrupted copies for fitting exit heads, more than two for each row.

        Noise of up to 0.6 deviations, mixtures of two, scaling from 0.3 to 2.3 and constants; of
        tokens a random share replaced, in one copy of each row.
        """
        count = len(rows)
        if not self.inputs:
            return []
        if self.tokens:
            shares = [random_tokens(share) for share in (0.1, 0.3, 0.6, 1.0)]
            parts = [rows[part] for part in np.array_split(random.permutation(count), len(shares))]
            made = [
                self.copy(part, share, random)
                for part, share in zip(parts, shares, strict=True)
                if len(part)
            ]
            return [*made, self.copy(rows[: max(1, count // 10)], one_token, random)]
        plan = ((some_noise, count), (some_mix, count), (some_scale, count * 3 // 10))
        made = [self.copy(rows[: max(1, n)], kind, random) for kind, n in plan]
        return [*made, self.copy(rows[: max(1, count // 10)], constant, random)]


Group = tuple[bool, list[str]]


def _groups(rows: Rows, signature: Signature) -> tuple[Group, ...]:
    """Names of inputs that hold numbers, tokens, and one or the other; whether each are tokens."""
    numbers, tokens, either = list[str](), list[str](), list[str]()
    for name, x in rows.tensors.items():
        if name == signature.mask:
            continue
        spec = signature.input(name)
        names = spec is not None and spec.count is not None
        masked = signature.mask is not None and x.shape == rows.tensors[signature.mask].shape
        if x.dtype.kind == "f":
            numbers.append(name)
        elif names or masked or x.dtype.kind == "b":
            tokens.append(name)
        elif x.ndim > 2 or x.dtype.itemsize < 4:  # pictures, samples of sound
            numbers.append(name)
        else:
            either.append(name)
    return (False, numbers), (True, tokens), (False, either)


def _telling(groups: tuple[Group, ...], rows: Rows, mask: str | None) -> Iterator[Group]:
    """The same without tokens of two values (segments, flags), and numbers if they are all so."""
    for tokens, names in groups:
        telling = [name for name in names if not _is_binary(_held(rows, name, mask))]
        yield tokens, telling if tokens or not telling else names


def _is_binary(held: NDArray[Any]) -> bool:
    low, high = held.min(), held.max()
    parts = (held[start : start + PART] for start in range(0, len(held), PART))
    return all(((part == low) | (part == high)).all() for part in parts)


def _real(rows: Rows, name: str, mask: str | None) -> NDArray[np.bool_] | None:
    """Which positions of an input are no padding, if the mask speaks of its positions."""
    if mask is None or rows.tensors[name].shape[:2] != rows.tensors[mask].shape:
        return None
    return rows.tensors[mask].astype(bool)


def _held(rows: Rows, name: str, mask: str | None) -> NDArray[Any]:
    """What an input holds, without padding; with it if there is nothing else."""
    x, real = rows.tensors[name], _real(rows, name, mask)
    return x if real is None or not real.any() else x[real]


def _varies(rows: Rows, name: str, mask: str | None) -> bool:
    """Whether rows differ in an input where both are no padding; positions do not."""
    x, real = rows.tensors[name], _real(rows, name, mask)
    if real is None:
        return bool((x.min(axis=0) != x.max(axis=0)).any())
    first = x[np.argmax(real, axis=0), np.arange(x.shape[1])]
    return bool((x != first)[real].any())


def _statistics(rows: Rows, name: str, mask: str | None) -> Tensor:
    held = _held(rows, name, mask)
    return Tensor(float(held.std()), float(held.min()), float(held.max()))
