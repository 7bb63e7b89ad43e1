"""Writing answers to a file: one line for each row, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from skipserve.building.scoring import Scored
from skipserve.errors import ConfigError
from skipserve.extras import require

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
    itself stands beside them where a row may hold several numbers, in .csv a column for each.
    """
    kind, answers, task = file.suffix.lower(), scored.prediction, scored.task
    columns: dict[str, Any] = {}
    if task.classes and answers.labels is not None:
        columns["label"] = answers.labels
        if task.names:
            columns["name"] = np.array(task.names)[answers.labels]
        picked = np.take_along_axis(answers.answers, answers.labels[:, None], axis=1)
        columns["probability"] = picked[:, 0]
    columns["depth_run"] = answers.depth_run
    columns["held_back"] = answers.held_back
    if kind == ".npz":
        columns[task.output] = answers.answers
        np.savez(file, **columns)
        return
    if kind == ".csv":
        import pyarrow
        import pyarrow.csv

        if not task.classes:
            for i in range(task.width):
                columns[task.names[i] if task.names else f"{task.output}_{i}"] = answers.answers[
                    :, i
                ]
        pyarrow.csv.write_csv(pyarrow.table(columns), str(file))
        return
    columns[task.output] = answers.answers.tolist()
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), str(file))
        return
    with file.open("wb") as lines:
        rows = zip(*(np.asarray(one).tolist() for one in columns.values()), strict=True)
        for values in rows:
            lines.write(msgspec.json.encode(dict(zip(columns, values, strict=True))) + b"\n")
