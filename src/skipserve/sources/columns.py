"""Files of rows, read as columns.

.npz and .npy are read by NumPy, .parquet, .csv and .jsonl by Arrow. No pickle is opened.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.sources.picture_files import as_files, read_classes

Columns = dict[str, NDArray[Any]]
# Column name for the array of a .npy file.
UNNAMED = ""
# Bytes of a line of JSON.
LONGEST_LINE = 16 << 20
ARRAYS = (".npy", ".npz")
TABLES = (".parquet", ".csv", ".jsonl")


def read_columns(file: Path) -> Columns:
    """Every column of a file of rows, each an array [N, …].

    Raises:
        ConfigError: If the file is missing, damaged or of another kind, or its columns are not
            equally long.
        LaunchError: If what reads its kind is not installed.
    """
    require_rows(file)
    if file.is_dir():
        return read_classes(file)
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


def require_rows(file: Path) -> None:
    """Look whether there is anything to read rows from.

    Raises:
        ConfigError: If there is neither a file of a known kind nor a folder.
    """
    if not file.exists():
        raise ConfigError(
            f"{file} is not there; name a file of rows (.npz, .npy, {', '.join(TABLES)}), or a "
            "folder that holds a folder of pictures for each class"
        )
    kind = file.suffix.lower()
    if not file.is_dir() and kind not in (*ARRAYS, *TABLES):
        raise ConfigError(
            f"{file}: rows are read from .npz, .npy, {', '.join(TABLES)} files, "
            f"not {kind or 'this'}"
        )


def _read(file: Path) -> Columns:
    kind = file.suffix.lower()
    if kind in ARRAYS:
        return _read_arrays(file)
    require("pyarrow", hint=f", which reads {kind} files, or bring the rows as .npz")
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    # A text may hold lines of its own, and be longer than what Arrow reads at once.
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    at_once = pyarrow.json.ReadOptions(block_size=LONGEST_LINE)
    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": partial(pyarrow.csv.read_csv, parse_options=lines),
        ".jsonl": partial(pyarrow.json.read_json, read_options=at_once),
    }
    table = readers[kind](str(file))
    return {name: _array(name, table.column(name), file) for name in table.column_names}


# What writes the files that NumPy reads, and how they begin.
_WRITERS = {".npy": "numpy.save", ".npz": "numpy.savez"}
_BEGINS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")


def _read_arrays(file: Path) -> Columns:
    with file.open("rb") as stream:  # closed also where NumPy finds nothing in it
        begins = stream.read(8)
        stream.seek(0)
        # Of anything else NumPy says that it is a pickle, and how to open that.
        if not begins.startswith(_BEGINS):
            kind = file.suffix.lower()
            raise ConfigError(f"{file} is no {kind} file; expected what {_WRITERS[kind]} writes")
        try:
            read = np.load(stream, allow_pickle=False)
            if isinstance(read, np.ndarray):
                return {UNNAMED: read}
            return {name: read[name] for name in read.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise ConfigError(
                f"{file} holds Python objects, which are not opened; expected numbers, or texts as "
                "numpy.array(texts, dtype=str) holds them"
            ) from None


def _array(name: str, column: Any, file: Path) -> NDArray[Any]:
    """A column of a table; lists of equal length become one array."""
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise ConfigError(f"{file}: row {row} of column {name!r} is empty; every row needs a value")
    values = column.to_pylist()
    if values and isinstance(values[0], str | dict | bytes):
        return objects(as_files(values, file.parent))
    if values and isinstance(values[0], list):
        first: list[object] = next((one for one in values if one), [])
        if first and isinstance(first[0], str):
            return objects(values)
        try:
            return np.array(values)
        except ValueError:
            raise ConfigError(
                f"{file}: the lists in column {name!r} are of different length or depth; "
                "pad them to one length"
            ) from None
    return np.array(values)


def objects(values: Sequence[object]) -> NDArray[np.object_]:
    """An object array, because fixed-width NumPy strings are all as long as the longest."""
    made = np.empty(len(values), object)
    for row, value in enumerate(values):  # all at once, arrays of one shape would become one
        made[row] = value
    return made
