"""Columns of a file, matched by name to the inputs of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, InputError, suggestion
from skipserve.runtime.rows import check_rows
from skipserve.signature import Signature
from skipserve.sources.labels import read_labels
from skipserve.sources.splits import Labelled
from skipserve.sources.values import Values, find_values


def match(
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    names: Mapping[str, str],
    labels: str | None,
    where: str,
    values: Values | None = None,
    query: str | None = None,
) -> Labelled:
    """Rows for a network from the columns of a file.

    Args:
        columns: By name.
        signature: Of the network; columns are matched to its inputs by name.
        names: What an input is called in the file, where the names differ.
        labels: Name of the column of true classes, or ``None``.
        where: Name of the file, for the error.
        values: What becomes of texts or pictures, for a model that takes such: they are looked for
            unless the columns hold every input.
        query: Name of the column of queries, or ``None``; it may hold the first texts of pairs,
            but no tensor.

    Raises:
        ConfigError: If a column is missing or is not what the input takes; it names the row.
    """
    inputs = {spec.name: names.get(spec.name, spec.name) for spec in signature.inputs}
    unknown = set(names) - set(inputs)
    if unknown:
        raise ConfigError(
            f"data.columns names {sorted(unknown)[0]!r}, which is no input of the network; it has "
            f"{', '.join(map(repr, inputs))}"
        )
    # Before the rows, because a misspelt label column would be taken for an input.
    known = read_labels(columns, labels, where, () if values is None else values.classes)
    others = [name for name in columns if name not in (labels, query)]
    if values is not None and (values.named(columns) or not columns.keys() >= {*inputs.values()}):
        # Texts in the column of queries may be what the model reads: it is not guessed.
        found = find_values(columns, [name for name in columns if name != labels], values, where)
        try:
            rows = check_rows(values.prepare(found.tolist()), signature, "the network")
        except InputError as error:
            raise ConfigError(f"{where}: {error.message}") from None
        return Labelled(rows, known, found)
    tensors = {}
    for spec in signature.inputs:
        name = inputs[spec.name]
        if name not in columns and len(inputs) == 1:
            if len(others) == 1:
                name = others[0]
            elif _is_table(columns, others) and len(spec.shape) == 2:
                tensors[spec.name] = _stacked(columns, others)
                continue
        if name not in columns:
            raise ConfigError(
                f"{where} has no column {name!r} for the input {spec.name!r}, and [data] columns "
                f"names no other; {suggestion(name, columns, '')}"
            )
        tensors[spec.name] = columns[name]
    try:
        rows = check_rows(tensors, signature, "the network")
    except InputError as error:
        raise ConfigError(f"{where}: {error.message}") from None
    return Labelled(rows, known)


def _is_table(columns: Mapping[str, NDArray[Any]], names: list[str]) -> bool:
    """Whether columns are single numbers that together form the rows of one input."""
    return all(columns[name].ndim == 1 and columns[name].dtype.kind in "fiub" for name in names)


def _stacked(columns: Mapping[str, NDArray[Any]], names: list[str]) -> NDArray[Any]:
    return np.stack([columns[name] for name in names], axis=1)
