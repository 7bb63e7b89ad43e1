"""Files of rows, read as columns.

.npz and .npy are read by NumPy, .parquet, .csv and .jsonl by Arrow. No pickle is opened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.files import DAMAGE, damage
from skipserve.sources.picture_files import as_files, read_classes

Columns = dict[str, NDArray[Any]]
# Column name for the array of a .npy file.
UNNAMED = ""
# Bytes of a row of .csv or .jsonl.
LONGEST_ROW = 16 << 20
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
    except (*DAMAGE, OSError, ValueError, KeyError, MemoryError) as error:
        said = damage(error)
        if "straddl" in said:  # Arrow's advice is for programs
            said = f"a row is longer than {LONGEST_ROW >> 20} MiB; bring the rows as .parquet"
        raise ConfigError(f"{file} cannot be read: {said}") from None
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
    csv = {"read_options": pyarrow.csv.ReadOptions(block_size=LONGEST_ROW), "parse_options": lines}
    json = {"read_options": pyarrow.json.ReadOptions(block_size=LONGEST_ROW)}
    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": partial(pyarrow.csv.read_csv, **csv),
        ".jsonl": partial(pyarrow.json.read_json, **json),
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
    numbers = _numbers(column, name, file)
    if numbers is not None:
        return numbers
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
            raise _uneven(name, file) from None
    return np.array(values)


def _numbers(column: Any, name: str, file: Path) -> NDArray[Any] | None:
    """A column of numbers, or of lists of numbers of any depth; ``None`` if it holds others.

    They are taken as they are: Python objects of as many numbers would need ten times the room.
    """
    from pyarrow import types

    kind = column.type
    while _holds_lists(kind):
        kind = kind.value_type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        return None
    parts: list[NDArray[Any]] = []
    for chunk in column.chunks:
        before = sum(map(len, parts))
        parts.append(_of_chunk(chunk, before, name, file))
    if len({part.shape[1:] for part in parts}) > 1:
        raise _uneven(name, file)
    return np.concatenate(parts) if parts else np.empty(0)


def _of_chunk(chunk: Any, before: int, name: str, file: Path) -> NDArray[Any]:
    """The numbers in a part of a column, before which so many rows stand."""
    import pyarrow.compute

    shape, values = [len(chunk)], chunk
    while _holds_lists(values.type):
        lengths = pyarrow.compute.list_value_length(values).unique()
        if len(lengths) > 1:
            raise _uneven(name, file)
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        values = values.flatten()
        if values.null_count:
            place = next(i for i, one in enumerate(values) if not one.is_valid)
            row = before + place // math.prod(shape[1:])
            raise ConfigError(
                f"{file}: row {row} of column {name!r} has an empty entry; every entry needs a "
                "value"
            )
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(shape)


def _holds_lists(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _uneven(name: str, file: Path) -> ConfigError:
    return ConfigError(
        f"{file}: the lists in column {name!r} are of different length or depth; pad them to one "
        "length"
    )


def objects(values: Sequence[object]) -> NDArray[np.object_]:
    """An object array, because fixed-width NumPy strings are all as long as the longest."""
    made = np.empty(len(values), object)
    for row, value in enumerate(values):  # all at once, arrays of one shape would become one
        made[row] = value
    return made
