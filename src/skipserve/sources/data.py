"""Rows from files, matched by name to the inputs of a network.

.npz and .npy are read by NumPy, .parquet, .csv and .jsonl by Arrow. No pickle is opened.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ConfigError, InputError
from skipserve.extras import require
from skipserve.preprocessing.opening import open_preprocessor
from skipserve.preprocessing.pictures import Pictures
from skipserve.preprocessing.preprocessor import Preprocessor
from skipserve.runtime.rows import check_rows
from skipserve.signature import Signature
from skipserve.sources.labels import read_labels
from skipserve.sources.picture_files import PictureFiles, as_files, read_classes
from skipserve.sources.splits import Labelled

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


def require_source(source: str) -> None:
    """Look whether a source is there; a module is not imported.

    Raises:
        ConfigError: If it is no file, no folder and no name of a function.
    """
    file = Path(source)
    if source.endswith(".onnx"):
        if not file.is_file():
            raise ConfigError(f"{source} is not there; name an .onnx file")
    elif file.is_file() or (not file.exists() and ":" not in source):
        raise no_source(source)


def no_source(name: str) -> ConfigError:
    """The error for a name that is no source of any kind."""
    return ConfigError(
        f"{name!r} is no .onnx file, no folder that is there, and names no function; write "
        "FILE.onnx, the path of a Hugging Face folder, or module:function"
    )


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


def require_sources(source: str, data: Path, fit: Path | None) -> None:
    """Look whether a network and its rows are there.

    Args:
        source: As a person names it.
        data: Its rows.
        fit: Rows to fit on, or ``None``.

    Raises:
        ConfigError: Naming the first that is not.
    """
    require_source(source)
    require_rows(data)
    if fit is not None:
        require_rows(fit)


def _read(file: Path) -> Columns:
    kind = file.suffix.lower()
    if kind in ARRAYS:
        with file.open("rb") as stream:  # closed also where NumPy finds nothing in it
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {UNNAMED: found}
            return {name: found[name] for name in found.files}
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


def _array(name: str, column: Any, file: Path) -> NDArray[Any]:
    """A column of a table; lists of equal length become one array."""
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise ConfigError(f"{file}: row {row} of column {name!r} is empty; every row needs a value")
    values = column.to_pylist()
    if values and isinstance(values[0], str | dict | bytes):
        return _objects(as_files(values, file.parent))
    if values and isinstance(values[0], list):
        first: list[object] = next((one for one in values if one), [])
        if first and isinstance(first[0], str):
            return _objects(values)
        try:
            return np.array(values)
        except ValueError:
            raise ConfigError(
                f"{file}: the lists in column {name!r} are of different length or depth; "
                "pad them to one length"
            ) from None
    return np.array(values)


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    """An object array, because fixed-width NumPy strings are all as long as the longest."""
    made = np.empty(len(values), object)
    for row, value in enumerate(values):  # all at once, arrays of one shape would become one
        made[row] = value
    return made


@dataclass(frozen=True)
class Values:
    """Texts or pictures among the columns.

    Attributes:
        prepare: Makes tensors of them.
        kind: ``text`` or ``picture``.
        columns: Where they stand: one column, or two for pairs; found where none is named.
        classes: Names of the classes, which labels may be given by.
        usual: Where they stood when the model was built: looked at before any other.
    """

    prepare: Preprocessor
    kind: Literal["text", "picture"]
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        prepare: Preprocessor,
        columns: Sequence[str] = (),
        classes: Sequence[str] = (),
        usual: Sequence[str] = (),
    ) -> Values:
        """Make it of a preprocessor; pictures may be files here."""
        named = tuple(columns), tuple(classes), tuple(usual)
        if isinstance(prepare, Pictures):
            return cls(PictureFiles(prepare), "picture", *named)
        return cls(prepare, "text", *named)

    def named(self, columns: Collection[str]) -> tuple[str, ...]:
        """Where they stand among the columns of a file, as far as that was said."""
        return self.columns or (self.usual if set(self.usual) <= set(columns) else ())


def values_of(artifact: Artifact, columns: Sequence[str] = ()) -> Values | None:
    """The preprocessing of an artifact for columns; ``None`` if it takes only tensors.

    Where none is named, they are by default those that the model was built with.

    Raises:
        ConfigError: If it does, and columns are named.
    """
    prepare = open_preprocessor(artifact)
    if prepare is None:
        if columns:
            raise ConfigError(
                f"--text names {columns[0]!r}, but {artifact.manifest.name} takes tensors alone; "
                "leave it out"
            )
        return None
    manifest = artifact.manifest
    return Values.of(prepare, columns, manifest.task.names, manifest.columns)


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
        found = _found(columns, [name for name in columns if name != labels], values, where)
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


def _found(
    columns: Mapping[str, NDArray[Any]], others: list[str], values: Values, where: str
) -> NDArray[np.object_]:
    """The values of each row: from one column, or pairs from two."""
    kind, named, listed = values.kind, values.named(columns), ", ".join(map(repr, columns))
    for name in named:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {listed}"
            raise ConfigError(f"{where} has no column {name!r} of {kind}s; {hint}")
    if not named and len(values.usual) > 1:  # one of a pair is not what the model reads
        raise ConfigError(
            f"{where} lacks one of the columns {' and '.join(map(repr, values.usual))}, which the "
            f"model was built with; it has {listed}: name the two that it reads with --text twice"
        )
    if not named:
        named = tuple(name for name in others if _may_hold(columns[name], kind))
        # Texts beside picture files are labels or descriptions.
        files = tuple(name for name in named if not isinstance(columns[name][0], str))
        named = files if kind == "picture" and files else named
        if len(named) != 1:
            raise ConfigError(
                f"{where} has {len(named) or 'no'} columns of {kind}s among {listed}; name the one "
                f"that the model reads with --{kind}"
            )
    most = 2 if kind == "text" else 1
    if len(named) > most:
        pairs = ", or two for pairs" if kind == "text" else ""
        raise ConfigError(f"{len(named)} columns of {kind}s; expected one{pairs}")
    for name in named:
        if not _may_hold(columns[name], kind):
            raise ConfigError(
                f"{where}: column {name!r} holds {columns[name].dtype}, expected {kind}s"
            )
    first, *second = (list(columns[name]) for name in named)
    return _objects(
        [list(pair) for pair in zip(first, second[0], strict=True)] if second else first
    )


def _may_hold(column: NDArray[Any], kind: Literal["text", "picture"]) -> bool:
    """Whether a column may hold texts or pictures."""
    pixels = column.ndim > 2 and column.dtype.kind in "iu"
    return column.dtype.kind in "OU" or (kind == "picture" and pixels)


def _is_table(columns: Mapping[str, NDArray[Any]], names: list[str]) -> bool:
    """Whether columns are single numbers that together form the rows of one input."""
    return all(columns[name].ndim == 1 and columns[name].dtype.kind in "fiub" for name in names)


def _stacked(columns: Mapping[str, NDArray[Any]], names: list[str]) -> NDArray[Any]:
    return np.stack([columns[name] for name in names], axis=1)
