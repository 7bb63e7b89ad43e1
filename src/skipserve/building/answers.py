"""Answers to files: one row each, in the order of the rows."""

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
    """Refuse a file that cannot be written before anything is computed.

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
    """Write label, name where the model has names, probabilities, depth and guard of each row."""
    kind, answers = file.suffix.lower(), scored.prediction
    columns: dict[str, Any] = {"label": answers.labels}
    if scored.names:
        columns["name"] = np.array(scored.names)[answers.labels]
    columns["probability"] = answers.probabilities.max(axis=1)
    columns["depth_run"] = answers.depth_run
    columns["held_back"] = answers.held_back
    if kind == ".npz":
        np.savez(file, probabilities=answers.probabilities, **columns)
        return
    if kind == ".csv":
        import pyarrow
        import pyarrow.csv

        pyarrow.csv.write_csv(pyarrow.table(columns), str(file))
        return
    columns["probabilities"] = answers.probabilities.tolist()
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), str(file))
        return
    with file.open("wb") as lines:
        rows = zip(*(np.asarray(one).tolist() for one in columns.values()), strict=True)
        for values in rows:
            lines.write(msgspec.json.encode(dict(zip(columns, values, strict=True))) + b"\n")
