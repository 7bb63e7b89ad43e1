"""Units: what a certificate counts, rows or queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.tasks.task import Answers, Task, Unit, finite

# Why a certificate that counts queries has no evidence on traffic.
NO_EVIDENCE = (
    "evidence is drawn row by row, and single rows do not show which documents of a query come "
    "first"
)


def counted(task: Task) -> Unit:
    """What a certificate of the task counts, in words."""
    return "rows" if task.top is None else "queries"


def too_short_note(queries: int) -> str:
    """A note behind those that are counted on queries that are not; empty if there are none."""
    return f" ({queries:,} more have too few documents to disagree)" if queries else ""


def ranked(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Places of scores [n], the best first; equal ones stay in order."""
    return np.argsort(-scores, kind="stable")


class Units:
    """What is counted of rows: each by itself, or all rows of a query as one.

    A query's rows are ranked by score, as a reply ranks them: see :func:`ranked`. It disagrees if a
    document among its first ``top`` has a lower score at full depth than the last of the first
    ``top`` there. So documents that full depth scores alike may change places. A query of at most
    ``top`` documents cannot disagree: it is not counted.

    Args:
        task: Says which of the two.
        rows: How many rows.
        queries: The query of each row [N], any values; needed where the task counts queries.

    Attributes:
        count: How many are counted.
        too_short: Queries of at most ``top`` documents, which are not.
        grouping: Of each row, the number of its query in the order of their first rows [N], int64;
            ``None`` where rows are counted.

    Raises:
        ConfigError: If the task counts queries and it is not said which row belongs to which, or no
            query has more documents than count.
    """

    def __init__(self, task: Task, rows: int, queries: NDArray[np.uint64] | None = None) -> None:
        self._task = task
        self._size = rows
        self._rows = self._of_row = np.arange(rows)
        self.count, self.too_short = rows, 0
        self.grouping: NDArray[np.int64] | None = None
        if task.top is None:
            return
        if queries is None:
            raise ConfigError(
                "a disagreement is counted for each query (task.top), and nothing says which query "
                "a row belongs to; bring pairs of texts, or name its column with --query"
            )
        self.grouping = _in_order(queries)
        sizes = np.bincount(self.grouping)
        counts = sizes > task.top
        self.count = int(counts.sum())
        self.too_short = len(sizes) - self.count
        if len(sizes) and not self.count:
            raise ConfigError(
                f"no query has more than {sizes.max()} documents, so the first {task.top} are "
                "always the same; bring queries with longer lists, or ask for a smaller top"
            )
        self._rows = np.flatnonzero(counts[self.grouping])
        self._of_row = (np.cumsum(counts) - 1)[self.grouping[self._rows]]

    def differ(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        """Which units disagree, of answers to all rows [N, width]: [units] bool."""
        if self._task.top is None:
            return ~self._task.agree(served, full)
        served, full = served[self._rows], full[self._rows]
        fails = [self._with(np.flatnonzero(~finite(one))) for one in (served, full)]
        first = self._first(full, self._task.top)
        taken = self._first(served, self._task.top)
        with np.errstate(invalid="ignore"):
            least = np.full(self.count, np.inf)
            np.minimum.at(least, self._of_row[first], full[first, 0])
            lower = taken[full[taken, 0] < least[self._of_row[taken]]]
        # A row without a finite answer fails its request, routed or not.
        unlike = self._with(lower)
        return np.asarray(np.where(fails[0] | fails[1], fails[0] != fails[1], unlike))

    def agree_alone(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        """Which rows leave their unit as it is if they alone are answered so [N] bool.

        Those of queries that are not counted do.

        Args:
            served: Answers to each row [N, width].
            full: Those of full depth, which the other rows of its query have.
        """
        if self._task.top is None:
            return self._task.agree(served, full)
        served, full = served[self._rows], full[self._rows]
        failing = np.bincount(self._of_row[~finite(full)], minlength=self.count)[self._of_row]
        fails = (failing - ~finite(full) > 0) | ~finite(served)
        with np.errstate(invalid="ignore"):
            stays = self._stays(served[:, 0], full, self._task.top)
        agrees = np.ones(self._size, dtype=bool)
        agrees[self._rows] = np.where(fails | (failing > 0), fails == (failing > 0), stays)
        return agrees

    def agree_by_depth(self, answers: Answers) -> NDArray[np.bool_]:
        """Which units agree with full depth if all rows stop at a depth [units, D] bool.

        Args:
            answers: Of all rows by depth [N, D, width], the last of full depth.
        """
        each = np.moveaxis(answers, 1, 0)
        return np.stack([~self.differ(one, each[-1]) for one in each], axis=1)

    def agree_alone_by_depth(self, answers: Answers) -> NDArray[np.bool_]:
        """Which rows leave their unit as it is if they alone stop at a depth [N, D] bool.

        Args:
            answers: As in :meth:`agree_by_depth`.
        """
        each = np.moveaxis(answers, 1, 0)
        return np.stack([self.agree_alone(one, each[-1]) for one in each], axis=1)

    def _stays(self, score: NDArray[np.floating], full: Answers, top: int) -> NDArray[np.bool_]:
        """Whether a query's first documents stay where one row alone has another score."""
        of_row, deep, place = self._of_row, full[:, 0], np.arange(len(full))
        is_first = np.zeros(len(full), dtype=bool)
        is_first[self._first(full, top)] = True
        least, most = np.full(self.count, np.inf), np.full(self.count, -np.inf)
        np.minimum.at(least, of_row[is_first], deep[is_first])
        np.maximum.at(most, of_row[~is_first], deep[~is_first])
        # Of equal scores the earlier row comes first: it stands at the border of the two.
        inner, outer = np.full(self.count, -1), np.full(self.count, len(full))
        borders = is_first & (deep == least[of_row])
        np.maximum.at(inner, of_row[borders], place[borders])
        borders = ~is_first & (deep == most[of_row])
        np.minimum.at(outer, of_row[borders], place[borders])
        least, most, inner, outer = (one[of_row] for one in (least, most, inner, outer))
        ahead = (score > most) | ((score == most) & (place < outer))
        behind = (score < least) | ((score == least) & (place > inner))
        return np.asarray(
            (least == most) & (is_first | (deep == least)) | np.where(is_first, ahead, behind)
        )

    def any(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which units have any such row, of all rows [N]: [units] bool."""
        return self._with(np.flatnonzero(rows[self._rows]))

    def some(self, most: int, fewest: int = 1) -> NDArray[np.int64]:
        """Rows of some units, whole, in order [n] int64.

        Rows are the first ones, queries are drawn at random from those that are counted, always the
        same.

        Args:
            most: Rows.
            fewest: Queries, even if they have more rows than that.
        """
        if self._task.top is None:
            return self._rows[:most]
        sizes = np.bincount(self._of_row, minlength=self.count)
        drawn = np.random.default_rng(0).permutation(self.count)
        kept = np.cumsum(sizes[drawn]) <= most
        kept[:fewest] = True
        return self._rows[np.isin(self._of_row, drawn[kept])]

    def _with(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which units have one of these counted rows."""
        found = np.zeros(self.count, dtype=bool)
        found[self._of_row[rows]] = True
        return found

    def _first(self, answers: Answers, top: int) -> NDArray[np.int64]:
        """The rows that come first in their query."""
        order = ranked(answers[:, 0])
        order = order[np.argsort(self._of_row[order], kind="stable")]
        starts = np.searchsorted(self._of_row[order], np.arange(self.count))
        place = np.arange(len(order)) - starts[self._of_row[order]]
        return np.asarray(order[place < top])


def _in_order(queries: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Numbers of queries in the order of their first rows, of each row [N] int64.

    They depend on which rows belong together, and on nothing else.
    """
    _, first, of_row = np.unique(queries, return_index=True, return_inverse=True)
    return np.asarray(first.argsort().argsort()[of_row], dtype=np.int64)
