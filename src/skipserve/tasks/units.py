"""Units: what a certificate counts, rows or queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.tasks.task import Answers, Task


class Units:
    """What is counted of rows: each by itself, or all rows of a query as one.

    A query's rows are ranked by score, as a reply ranks them: equal scores stay in order. It
    disagrees if a document among its first ``top`` has a lower score at full depth than the last
    of the first ``top`` there. So documents that full depth scores alike may change places.

    Args:
        task: Says which of the two.
        rows: How many rows.
        queries: The query of each row [N], any values; needed where the task counts queries.

    Raises:
        ConfigError: If the task counts queries and it is not said which row belongs to which, or no
            query has more documents than count.
    """

    def __init__(self, task: Task, rows: int, queries: NDArray[np.uint64] | None = None) -> None:
        self._task = task
        self._of_row = np.arange(rows)
        self.count = rows
        if task.top is None:
            return
        if queries is None:
            raise ConfigError(
                "a disagreement is counted for each query (task.top), and nothing says which query "
                "a row belongs to; bring pairs of texts, or name its column with --query"
            )
        _, self._of_row, sizes = np.unique(queries, return_inverse=True, return_counts=True)
        self.count = len(sizes)
        if len(sizes) and sizes.max() <= task.top:
            raise ConfigError(
                f"no query has more than {sizes.max()} documents, so the first {task.top} are "
                "always the same; bring queries with longer lists, or ask for a smaller top"
            )

    def differ(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        """Which units disagree, of answers to all rows [N, width]: [units] bool."""
        if self._task.top is None:
            return ~self._task.agree(served, full)
        first = self._first(full, self._task.top)
        least = np.full(self.count, np.inf)
        np.minimum.at(least, self._of_row[first], full[first, 0])
        taken = self._first(served, self._task.top)
        with np.errstate(invalid="ignore"):
            lower = taken[full[taken, 0] < least[self._of_row[taken]]]
        unlike = self._with(lower)
        # A row without a finite answer fails its request, routed or not.
        bad = [np.flatnonzero(~np.isfinite(one).all(axis=1)) for one in (served, full)]
        fails = [self._with(rows) for rows in bad]
        return np.asarray(np.where(fails[0] | fails[1], fails[0] != fails[1], unlike))

    def agree_alone(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        """Which rows leave their unit as it is if they alone are answered so [N] bool.

        Args:
            served: Answers to each row [N, width].
            full: Those of full depth, which the other rows of its query have.
        """
        top = self._task.top
        if top is None:
            return self._task.agree(served, full)
        is_first = np.zeros(len(full), dtype=bool)
        is_first[self._first(full, top)] = True
        least, most = np.full(self.count, np.inf), np.full(self.count, -np.inf)
        np.minimum.at(least, self._of_row[is_first], full[is_first, 0])
        np.maximum.at(most, self._of_row[~is_first], full[~is_first, 0])
        score = served[:, 0]
        stays = np.where(is_first, score >= most[self._of_row], score <= least[self._of_row])
        return np.asarray(stays & np.isfinite(score))

    def any(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which units have any such row, of all rows [N]: [units] bool."""
        return self._with(np.flatnonzero(rows))

    def _with(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which units have one of these rows."""
        found = np.zeros(self.count, dtype=bool)
        found[self._of_row[rows]] = True
        return found

    def _first(self, answers: Answers, top: int) -> NDArray[np.int64]:
        """The rows that come first in their query."""
        order = np.lexsort((-answers[:, 0], self._of_row))
        starts = np.searchsorted(self._of_row[order], np.arange(self.count))
        place = np.arange(len(order)) - starts[self._of_row[order]]
        return np.asarray(order[place < top])
