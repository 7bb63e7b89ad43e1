"""Requests whose rows began together: which are complete, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import RowResults

Places = NDArray[np.int64]


@dataclass(frozen=True)
class CompletedMembers:
    """Requests that became complete.

    Attributes:
        members: Indices among the requests that began together.
        rows: Their rows.
        results: Of these rows.
    """

    members: Sequence[int]
    rows: Rows
    results: RowResults


class Together:
    """Requests whose rows began together and leave one by one.

    Args:
        rows: Rows of all requests, concatenated.
        counts: Rows of each request.
    """

    def __init__(self, rows: Rows, counts: Sequence[int]) -> None:
        self._rows = rows
        self._counts = counts
        self._single = all(count == 1 for count in counts)
        self._made: RowResults | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def settle(self, places: Places, results: RowResults) -> CompletedMembers | None:
        """Record rows that left; returns the requests that became complete, if any.

        Args:
            places: Of the rows [n].
            results: Of these rows.
        """
        whole = len(places) == len(self) and (len(places) == 1 or (np.diff(places) == 1).all())
        if whole:
            return CompletedMembers(range(len(self._counts)), self._rows, results)
        if self._single:  # complete as soon as it has left
            return CompletedMembers(places.tolist(), self._rows[places], results)
        owners = self._owner[places]
        np.subtract.at(self._missing, owners, 1)
        self._keep(places, results)
        assert self._made is not None
        done = np.unique(owners[self._missing[owners] == 0])
        if not len(done):
            return None
        theirs = np.flatnonzero(np.isin(self._owner, done))
        return CompletedMembers(done.tolist(), self._rows[theirs], self._made[theirs])

    def give_up(self, places: Places) -> list[int]:
        """Give up rows that failed; returns their requests, which never become complete."""
        lost: list[int] = np.unique(self._owner[places]).tolist()
        self._missing[lost] = -1
        return lost

    # Most requests leave at once, and need neither of these.
    @cached_property
    def _missing(self) -> NDArray[np.int64]:
        """Rows of each request that have not left."""
        return np.array(self._counts)

    @cached_property
    def _owner(self) -> NDArray[np.int64]:
        """The request of each row."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

    def _keep(self, places: Places, results: RowResults) -> None:
        if self._made is None:
            size = len(self)

            def like(one: NDArray[Any]) -> NDArray[Any]:
                return np.zeros((size, *one.shape[1:]), one.dtype)

            left_out = None if results.left_out is None else like(results.left_out)
            self._made = RowResults(
                like(results.answers),
                like(results.depth_run),
                like(results.held_back),
                like(results.signals),
                left_out,
            )
        made = self._made
        made.answers[places] = results.answers
        made.depth_run[places] = results.depth_run
        made.held_back[places] = results.held_back
        made.signals[places] = results.signals
        if made.left_out is not None and results.left_out is not None:
            made.left_out[places] = results.left_out
        if results.trail is not None:
            if made.trail is None:
                made = self._made = replace(made, trail=results.trail.blank(len(self)))
            assert made.trail is not None
            made.trail.put(places, results.trail)
