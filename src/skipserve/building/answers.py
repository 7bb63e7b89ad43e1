"""Writing answers to a file: one line for each row, in order."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.building.scoring import Scored
from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.files import replacing_file
from skipserve.sources.arrays import write_arrays

KINDS = (".parquet", ".csv", ".jsonl", ".npz")


def check_writable(file: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises:
        ConfigError: If its kind is unknown, or its folder is not there.
        LaunchError: If what writes its kind is not installed.
    """
    if file.suffix.lower() not in KINDS:
        raise ConfigError(f"{file}: answers are written to {', '.join(KINDS)} files")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: the folder {file.parent} is not there; make it first")
    if file.suffix.lower() in (".parquet", ".csv"):
        hint = f", which writes {file.suffix} files, or have the answers as .jsonl or .npz"
        require("pyarrow", hint=hint)


def write_answers(file: Path, scored: Scored) -> None:
    """Write the answer of each row with its depth and whether the guard held it back.

    Of classes that is label, name where there are names, and the label's probability; the answer
    itself stands beside them where a row may hold several numbers, in .csv a column for each. A row
    without a finite answer is not ``answered``: its fields of the answer are empty, in .npz the
    label is −1.

    Args:
        file: Of one of ``KINDS``; an older one is replaced as a whole, or stays.
        scored: The answers.
    """
    kind, answers = file.suffix.lower(), scored.prediction
    known = answers.finite
    columns = _decisions(scored)
    columns["answered"] = known
    columns["depth_run"] = answers.depth_run
    columns["held_back"] = answers.held_back
    columns |= _numbers(scored, apart=kind == ".csv")
    if kind == ".npz":
        write_arrays(file, columns)
        return
    said = {name for name in columns if name not in ("answered", "depth_run", "held_back")}
    with replacing_file(file) as fresh:
        if kind == ".jsonl":
            _write_lines(fresh, columns, said, known)
        else:
            _write_table(fresh, columns, said, known)


def _decisions(scored: Scored) -> dict[str, NDArray[Any]]:
    """What is decided by the answers, if they are of classes; −1 where there is none."""
    answers, task = scored.prediction, scored.task
    if not task.classes or answers.labels is None:
        return {}
    known = answers.finite
    columns: dict[str, NDArray[Any]] = {"label": np.where(known, answers.labels, -1)}
    if task.names:
        columns["name"] = np.where(known, np.array(task.names)[answers.labels], "")
    picked = np.take_along_axis(answers.answers, answers.labels[:, None], axis=1)[:, 0]
    columns["probability"] = np.where(known, picked, np.float32(np.nan))
    return columns


def _numbers(scored: Scored, apart: bool) -> dict[str, NDArray[Any]]:
    """The answers themselves: whole, or a column for each number where they are of no class."""
    task, answers = scored.task, scored.prediction.answers
    if not apart:
        return {task.output: answers}
    names = task.names or [f"{task.output}_{i}" for i in range(task.width)]
    return {} if task.classes else dict(zip(names, answers.T, strict=True))


def _write_lines(
    file: Path, columns: Mapping[str, NDArray[Any]], said: Set[str], known: NDArray[np.bool_]
) -> None:
    with file.open("wb") as lines:
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        for values, answered in zip(rows, known.tolist(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if not answered:
                row |= dict.fromkeys(said)
            lines.write(msgspec.json.encode(row) + b"\n")


def _write_table(
    file: Path, columns: Mapping[str, NDArray[Any]], said: Set[str], known: NDArray[np.bool_]
) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    arrays = {
        name: pyarrow.array(
            list(column) if column.ndim > 1 else column, mask=~known if name in said else None
        )
        for name, column in columns.items()
    }
    write = pyarrow.csv.write_csv if file.suffix.lower() == ".csv" else pyarrow.parquet.write_table
    write(pyarrow.table(arrays), str(file))
