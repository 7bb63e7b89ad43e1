"""Waves: rows in the network, and the results of rows that left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.trail import Trail, joined

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Limits:
    """Thresholds and guard limits of rows.

    Attributes:
        thresholds: [B, decisions], float32; at +inf no row leaves.
        guard: Limits [B], float32; a row beyond its limit runs everything, at +inf none does.
        drawn: Rows that give evidence [B], bool: they run every stage, whatever their thresholds,
            and what every exit reads is kept. ``None``: none.
    """

    thresholds: Floats
    guard: Floats
    drawn: NDArray[np.bool_] | None = None

    def __getitem__(self, index: NDArray[Any] | slice) -> Limits:
        drawn = None if self.drawn is None else self.drawn[index]
        return Limits(self.thresholds[index], self.guard[index], drawn)

    @cached_property
    def routed(self) -> NDArray[np.bool_]:
        """Rows that run stage by stage [B]; a threshold of +inf or NaN lets no row leave."""
        routed = np.asarray((self.thresholds < np.inf).any(axis=1))
        return routed if self.drawn is None else routed | self.drawn


@dataclass
class Wave:
    """Rows that are about to run the same stage.

    Attributes:
        rows: Names given by the sender [n], int64.
        tensors: Inputs of the network, side rows and the stream, one entry a row.
        inside: Whether each was inside the guard at every cut so far [n], bool.
        limits: Of each.
        signals: What was read so far [n, decisions], float32; NaN behind.
        trail: What the exits read so far, where rows give evidence.
    """

    rows: NDArray[np.int64]
    tensors: Tensors
    inside: NDArray[np.bool_]
    limits: Limits
    signals: Floats
    trail: Trail | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Wave:
        """The rows at some places [m]."""
        # In whole rows: faster than a mask, which streams of megabytes feel.
        tensors = {name: tensor.take(index, axis=0) for name, tensor in self.tensors.items()}
        return Wave(
            self.rows[index],
            tensors,
            self.inside[index],
            self.limits[index],
            self.signals[index],
            None if self.trail is None else self.trail[index],
        )

    @property
    def shapes(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Shape of one row of each tensor: waves of equal shapes can run together."""
        return frozenset((name, tensor.shape[1:]) for name, tensor in self.tensors.items())


def together(waves: Sequence[Wave]) -> Wave:
    """Join waves of equal shapes before the same stage; at least one."""
    if len(waves) == 1:
        return waves[0]
    limits = [wave.limits for wave in waves]
    return Wave(
        np.concatenate([wave.rows for wave in waves]),
        {name: np.concatenate([w.tensors[name] for w in waves]) for name in waves[0].tensors},
        np.concatenate([wave.inside for wave in waves]),
        limits_of(limits),
        np.concatenate([wave.signals for wave in waves]),
        joined([wave.trail for wave in waves], [len(wave) for wave in waves]),
    )


def limits_of(parts: Sequence[Limits]) -> Limits:
    """Concatenate limits."""
    drawn = None
    if any(one.drawn is not None for one in parts):
        none = [np.zeros(len(one.guard), dtype=bool) for one in parts]
        pairs = zip(parts, none, strict=True)
        drawn = np.concatenate([no if one.drawn is None else one.drawn for one, no in pairs])
    return Limits(
        np.concatenate([one.thresholds for one in parts]),
        np.concatenate([one.guard for one in parts]),
        drawn,
    )


@dataclass(frozen=True)
class RowResults:
    """Results of rows that left, or of a whole batch.

    Attributes:
        answers: [B, width], float32.
        depth_run: Blocks run for each row [B], int64.
        held_back: Rows that the guard sent to full depth [B], bool.
        signals: By row and decision [B, decisions], float32; NaN where a row did not get there.
        left_out: Under ``skip``, whether a row left out the blocks behind each decision
            [B, decisions], bool.
        trail: What every exit read, where rows give evidence.
    """

    answers: Floats
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    signals: Floats
    left_out: NDArray[np.bool_] | None = None
    trail: Trail | None = None

    def __getitem__(self, index: NDArray[Any] | slice) -> RowResults:
        """The results of some of the rows."""
        return RowResults(
            self.answers[index],
            self.depth_run[index],
            self.held_back[index],
            self.signals[index],
            None if self.left_out is None else self.left_out[index],
            None if self.trail is None else self.trail[index],
        )


@dataclass(frozen=True)
class FinishedRows:
    """Rows that left the network.

    Attributes:
        rows: Which [n].
        results: Of these rows.
    """

    rows: NDArray[np.int64]
    results: RowResults


def gathered(parts: Sequence[FinishedRows]) -> RowResults:
    """Results of rows 0 to B − 1 in order, from the parts in which they left."""
    if len(parts) == 1:
        return parts[0].results
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    made = [part.results for part in parts]
    trail = joined([one.trail for one in made], [len(one.depth_run) for one in made])
    return RowResults(
        np.concatenate([one.answers for one in made])[order],
        np.concatenate([one.depth_run for one in made])[order],
        np.concatenate([one.held_back for one in made])[order],
        np.concatenate([one.signals for one in made])[order],
        trail=None if trail is None else trail[order],
    )
