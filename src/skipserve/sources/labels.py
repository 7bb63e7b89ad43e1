"""Labels in data files: classes or sets of labels, by name or by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, suggestion


def read_labels(
    columns: Mapping[str, NDArray[Any]], name: str | None, where: str, classes: tuple[str, ...]
) -> NDArray[np.int64] | None:
    """The labels of rows: classes [N], or sets of labels [N, labels] of 0 and 1.

    Args:
        columns: By name.
        name: Of the column, or ``None``.
        where: Name of the file, for the error.
        classes: Names that labels may be given by; empty where there are none.

    Raises:
        ConfigError: If there is no such column, or it holds something else; it names the row.
    """
    if name is None:
        return None
    if name not in columns:
        hint = suggestion(name, columns, "")
        raise ConfigError(f"{where} has no column {name!r} of labels; {hint}")
    labels = columns[name]
    if classes and labels.ndim == 1 and labels.dtype.kind in "OU":
        if any(isinstance(one, list) for one in labels):
            return _sets_by_name(labels.tolist(), classes, name, where)
        return _by_name(labels.tolist(), classes, name, where)
    if labels.dtype.kind == "b" and (labels.ndim == 2 or (labels.ndim, len(classes)) == (1, 2)):
        return labels.astype(np.int64)
    if labels.ndim > 2 or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{where}: the labels in {name!r} must be whole numbers, one a row, or for a set of "
            f"labels a list of their names or of 0 and 1; got {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    return labels.astype(np.int64)


def _by_name(
    labels: Sequence[object], classes: tuple[str, ...], name: str, where: str
) -> NDArray[np.int64]:
    places = {one: i for i, one in enumerate(classes)}
    for row, label in enumerate(labels):
        if not isinstance(label, str) or label not in places:
            raise ConfigError(
                f"{where}: row {row} of {name!r} is {label!r}, which is none of the model's "
                f"labels: {', '.join(classes)}"
            )
    return np.array([places[str(label)] for label in labels], np.int64)


def _sets_by_name(
    labels: Sequence[object], classes: tuple[str, ...], name: str, where: str
) -> NDArray[np.int64]:
    """Sets of labels as 0 and 1 [N, classes]."""
    sets = np.zeros((len(labels), len(classes)), np.int64)
    for row, given in enumerate(labels):
        if not isinstance(given, list):
            raise ConfigError(f"{where}: row {row} of {name!r} is {given!r}, expected a list")
        for label in given:
            if label not in classes:
                raise ConfigError(
                    f"{where}: row {row} of {name!r} has {label!r}, which is none of the model's "
                    f"labels: {', '.join(classes)}"
                )
            sets[row, classes.index(label)] = 1
    return sets
