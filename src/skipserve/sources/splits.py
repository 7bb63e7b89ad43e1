"""Disjoint splits of rows: to fit on, to propose on, to certify on, and to test on.

A row's split follows from its content, so equal rows never stand in two splits, and the same rows
give the same splits whatever their order. Within a split their order follows from the content too:
much is fitted to the first rows of a split, and a file may be sorted by class. Rows of one query
stay together: their split follows from the query, and equal rows of two queries may stand in two.
Where rows to fit on were given, what is among them is known by query and by content: the queries of
another file may be numbered otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows
from skipserve.signature import Signature
from skipserve.sources.contents import contents_of, hashed

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


def split_rows(
    data: Labelled, signature: Signature, beside: Labelled | None = None, seed: int = 0
) -> Splits:
    """Split rows by their content.

    Args:
        data: All rows, or those beside ``beside``.
        signature: Of the network that they are for.
        beside: Rows to fit on, such as those the network was trained on; rows of ``data`` that are
            among them are left out, and whole queries that are there or have a row there.
        seed: From 0 to 2⁶⁴ − 1; another seed is another split.
    """
    contents = contents_of(data.rows, signature, seed)
    keys = contents if data.queries is None else hashed(([one] for one in data.queries), seed)
    shares: Sequence[float] = SHARES
    usable = np.ones(len(data), dtype=bool)
    if beside is not None:
        shares = SHARES_BESIDE
        fitted = contents_of(beside.rows, signature, seed)
        known = np.isin(contents, fitted)
        if data.values is not None and beside.values is not None:
            # Equal texts of two files may be padded otherwise, and there may be no mask.
            known |= _among(data.values, beside.values)
        if data.queries is not None and beside.queries is not None:
            known |= np.isin(data.queries, beside.queries)
            known = np.isin(data.queries, data.queries[known])
        usable = ~known
    place = (keys >> np.uint64(11)) / float(1 << 53)
    ends = np.cumsum(shares)
    split = np.searchsorted(ends[:-1], place, side="right")
    order = np.lexsort((contents, keys))
    parts = [_take(data, order[(usable & (split == i))[order]]) for i in range(len(shares))]
    if beside is not None:
        parts[0] = _take(beside, np.argsort(fitted, kind="stable"))
    return Splits(*parts)


def _take(data: Labelled, index: NDArray[np.int64]) -> Labelled:
    labels = None if data.labels is None else data.labels[index]
    values = None if data.values is None else data.values[index]
    queries = None if data.queries is None else data.queries[index]
    return Labelled(data.rows[index], labels, values, queries)


def _among(values: NDArray[np.object_], others: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which texts, or pairs of texts, are among others [N]; pictures are known by their pixels."""
    known = {_plain(one) for one in others} - {None}
    return np.array([_plain(one) in known for one in values], dtype=bool)


def _plain(value: object) -> str | tuple[str, ...] | None:
    """A text or a pair to compare, whichever file it is of; NumPy has strings of its own."""
    if isinstance(value, list):
        return tuple(map(str, value))
    return str(value) if isinstance(value, str) else None
