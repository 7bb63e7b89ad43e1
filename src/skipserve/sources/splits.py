"""Disjoint splits of rows: to fit on, to propose on, to certify on, and to test on.

A row's split follows from its content, so equal rows never stand in two splits, and the same rows
give the same splits whatever their order. Rows of one query stay together: their split follows from
the query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows

# Shares of fitting, proposing, certifying and testing.
SHARES = (0.4, 0.15, 0.3, 0.15)
# The same where rows to fit on were given beside them.
SHARES_BESIDE = (0.0, 0.3, 0.5, 0.2)


@dataclass(frozen=True)
class Labelled:
    """Rows with their labels.

    Attributes:
        rows: N rows.
        labels: Their classes [N] or sets of labels [N, width], int64, or ``None``.
        values: The texts or pictures that they were made of [N], objects, or ``None``.
        queries: A hash of the query that each row belongs to [N], or ``None`` where each is by
            itself.
    """

    rows: Rows
    labels: NDArray[np.int64] | None = None
    values: NDArray[np.object_] | None = None
    queries: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Splits:
    """Four disjoint sets of rows.

    Attributes:
        fit: For heads and guards; the network may have been trained on them.
        propose: For thresholds and the place of the exits.
        certify: For certificates alone.
        test: For reports.
    """

    fit: Labelled
    propose: Labelled
    certify: Labelled
    test: Labelled


def split_rows(data: Labelled, beside: Labelled | None = None, seed: int = 0) -> Splits:
    """Split rows by their content.

    Args:
        data: All rows, or those beside ``beside``.
        beside: Rows to fit on, such as those the network was trained on; rows of ``data`` that are
            among them are left out, and whole queries that have rows there.
        seed: Another seed is another split.
    """
    keys = _keys(data, seed)
    shares: Sequence[float] = SHARES
    usable = np.ones(len(data), dtype=bool)
    if beside is not None:
        shares = SHARES_BESIDE
        usable = ~np.isin(keys, _keys(beside, seed))
    place = (keys >> np.uint64(11)) / float(1 << 53)
    ends = np.cumsum(shares)
    split = np.searchsorted(ends[:-1], place, side="right")
    parts = [_take(data, np.flatnonzero(usable & (split == i))) for i in range(len(shares))]
    if beside is not None:
        parts[0] = beside
    return Splits(*parts)


def _take(data: Labelled, index: NDArray[np.int64]) -> Labelled:
    labels = None if data.labels is None else data.labels[index]
    values = None if data.values is None else data.values[index]
    queries = None if data.queries is None else data.queries[index]
    return Labelled(data.rows[index], labels, values, queries)


def _keys(data: Labelled, seed: int) -> NDArray[np.uint64]:
    """A hash of each row's query, where rows have one, else of its content [N]."""
    salt = seed.to_bytes(8, "little")
    keys = np.empty(len(data), np.uint64)
    tensors = [np.ascontiguousarray(tensor) for tensor in data.rows.tensors.values()]
    if data.queries is not None:
        tensors = [data.queries]
    for i in range(len(data)):
        digest = hashlib.blake2b(salt, digest_size=8)
        for tensor in tensors:
            digest.update(tensor[i].tobytes())
        keys[i] = int.from_bytes(digest.digest(), "little")
    return keys
