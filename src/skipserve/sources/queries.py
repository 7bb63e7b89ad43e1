"""Queries: which rows belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, suggestion
from skipserve.sources.splits import Labelled
from skipserve.tasks import Task, TaskConfig


def with_queries(
    data: Labelled,
    task: Task | TaskConfig,
    columns: Mapping[str, NDArray[Any]],
    name: str | None,
    where: str,
) -> Labelled:
    """Rows with the query of each, if the task counts queries.

    Args:
        data: Rows of a file.
        task: Of the model.
        columns: Of the file, by name.
        name: Of the column that holds a query for each row; the first text of a pair if ``None``.
        where: Name of the file, for the error.

    Raises:
        ConfigError: If there is no such column, or queries are needed and rows are no pairs, or a
            column is named that nothing needs, or a row has no query.
    """
    if task.top is None:
        if name is None:
            return data
        raise ConfigError(
            f"{where}: {name!r} names queries, and the task counts rows; set top = 10 in [task] of "
            "a score (--top 10), or leave it out"
        )
    if name is not None:
        if name not in columns:
            raise ConfigError(
                f"{where} has no column {name!r} of queries; " + suggestion(name, columns, "")
            )
        found = columns[name].tolist()
    elif data.values is not None and all(isinstance(one, list) for one in data.values):
        found = [pair[0] for pair in data.values]
    else:
        raise ConfigError(
            f"{where}: a disagreement is counted for each query (task.top); bring pairs of texts, "
            "the query first, or name the column that says which query a row belongs to: query in "
            "[data], or --query"
        )
    for row, query in enumerate(found):
        if (isinstance(query, float) and np.isnan(query)) or not str(query).strip():
            raise ConfigError(
                f"{where}: the query of row {row} is {query!r}; rows without a query would count "
                "as one: name the query of each, or leave them out"
            )
    return replace(data, queries=_hashed(found))


def _hashed(values: list[Any]) -> NDArray[np.uint64]:
    """A hash of each; 1, 1.0 and "1" are one query, however a file types its column."""
    said = [str(int(one) if isinstance(one, float) and one.is_integer() else one) for one in values]
    digests = [hashlib.blake2b(one.encode(), digest_size=8).digest() for one in said]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
