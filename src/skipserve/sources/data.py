"""Rows from files, matched by name to the inputs of a network.

.npz and .npy are read by NumPy, .parquet, .csv and .jsonl by Arrow. No pickle is opened.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, InputError
from skipserve.extras import require
from skipserve.runtime.rows import check_rows
from skipserve.signature import Signature
from skipserve.sources.splits import Labelled

Columns = dict[str, NDArray[Any]]
# What the one array of a .npy file is called, which has no name.
UNNAMED = ""
ARRAYS = (".npy", ".npz")
TABLES = (".parquet", ".csv", ".jsonl")


def read_columns(file: Path) -> Columns:
    """Every column of a file of rows, each an array [N, …].

    Raises:
        ConfigError: If the file is missing, damaged or of another kind, or its columns are not
            equally long.
        LaunchError: If what reads its kind is not installed.
    """
    if not file.is_file():
        raise ConfigError(
            f"{file} is not there; name a file of rows (.npz, .npy, {', '.join(TABLES)})"
        )
    try:
        columns = _read(file)
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    lengths = {name: len(column) for name, column in columns.items() if column.ndim}
    if len(lengths) < len(columns) or len(set(lengths.values())) > 1:
        found = ", ".join(f"{name or 'array'} {column.shape}" for name, column in columns.items())
        raise ConfigError(f"{file}: every column must hold one entry a row, found {found}")
    if not lengths or not next(iter(lengths.values())):
        raise ConfigError(f"{file} holds no row")
    return columns


def _read(file: Path) -> Columns:
    kind = file.suffix.lower()
    if kind in ARRAYS:
        with file.open("rb") as stream:  # closed also where NumPy finds nothing in it
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {UNNAMED: found}
            return {name: found[name] for name in found.files}
    if kind not in TABLES:
        raise ConfigError(
            f"{file}: rows are read from .npz, .npy, {', '.join(TABLES)} files, "
            f"not {kind or 'this'}"
        )
    require("pyarrow", hint=f", which reads {kind} files, or bring the rows as .npz")
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
    }
    table = readers[kind](str(file))
    return {name: _array(name, table.column(name), file) for name in table.column_names}


def _array(name: str, column: Any, file: Path) -> NDArray[Any]:
    """A column of a table; lists of equal length become one array."""
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise ConfigError(f"{file}: row {row} of column {name!r} is empty; every row needs a value")
    values = column.to_pylist()
    if values and isinstance(values[0], list):
        try:
            return np.array(values)
        except ValueError:
            raise ConfigError(
                f"{file}: the lists in column {name!r} are of different length or depth; "
                "pad them to one length"
            ) from None
    return np.array(values)


def match(
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    names: Mapping[str, str],
    labels: str | None,
    where: str,
) -> Labelled:
    """Rows for a network from the columns of a file.

    Args:
        columns: By name.
        signature: Of the network; columns are matched to its inputs by name.
        names: What an input is called in the file, where the names differ.
        labels: Name of the column of true classes, or ``None``.
        where: Name of the file, for the error.

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
    # Before the rows: a misspelt column of labels would be taken for one of theirs.
    known = _labels(columns, labels, where)
    others = [name for name in columns if name != labels]
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
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{where} has no column {name!r} for the input {spec.name!r}, only "
                f"{', '.join(map(repr, columns))}{hint} name it in [data] columns"
            )
        tensors[spec.name] = columns[name]
    try:
        rows = check_rows(tensors, signature, "the network")
    except InputError as error:
        raise ConfigError(f"{where}: {error.message}") from None
    return Labelled(rows, known)


def _is_table(columns: Mapping[str, NDArray[Any]], names: list[str]) -> bool:
    """Whether columns are single numbers, which together are the rows of one input."""
    return all(columns[name].ndim == 1 and columns[name].dtype.kind in "fiub" for name in names)


def _stacked(columns: Mapping[str, NDArray[Any]], names: list[str]) -> NDArray[Any]:
    return np.stack([columns[name] for name in names], axis=1)


def _labels(
    columns: Mapping[str, NDArray[Any]], name: str | None, where: str
) -> NDArray[np.int64] | None:
    if name is None:
        return None
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, columns))}"
        raise ConfigError(f"{where} has no column {name!r} of labels; {hint}")
    labels = columns[name]
    if labels.ndim > 2 or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{where}: the labels in {name!r} must be whole numbers, one a row, or a list of 0 and "
            f"1 for a set of labels; got {labels.dtype} of shape {list(labels.shape)}"
        )
    return labels.astype(np.int64)
