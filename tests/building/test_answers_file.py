"""Files of answers: a row without an answer has no label, and an older file stays or goes whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from skipserve.building import answers as writing
from skipserve.building.answers import write_answers
from skipserve.building.scoring import Scored
from skipserve.runtime.prediction import Prediction
from skipserve.tasks import Classify, Embed, Task

NAN = float("nan")


def scored(task: Task, answers: list[list[float]]) -> Scored:
    given = np.array(answers, np.float32)
    held_back = np.zeros(len(given), bool)
    made = Prediction(task.labels(given), given, np.full(len(given), 3), held_back)
    return Scored(made, task, None, "")


CLASSES = scored(Classify(classes=2, names=("no", "yes")), [[0.25, 0.75], [NAN, NAN], [1, 0]])
VECTORS = scored(Embed(dimensions=2, cosine=0.9), [[0.6, 0.8], [NAN, 1]])


def rows_in(file: Path) -> list[dict[str, Any]]:
    kind = file.suffix.lower()
    if kind == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    if kind == ".npz":
        with np.load(file) as arrays:
            columns = {name: arrays[name].tolist() for name in arrays.files}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    read = pyarrow.csv.read_csv if kind == ".csv" else pyarrow.parquet.read_table
    found: list[dict[str, Any]] = read(str(file)).to_pylist()
    return found


@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".csv", ".npz", ".NPZ", ".Csv"])
def test_a_row_without_an_answer_has_no_label(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"answers{kind}"
    write_answers(file, CLASSES)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    first, none, last = rows_in(file)
    assert [one["answered"] for one in (first, none, last)] == [True, False, True]
    assert (first["label"], first["name"], first["probability"]) == (1, "yes", 0.75)
    assert (last["label"], last["name"], last["depth_run"]) == (0, "no", 3)
    if kind.lower() == ".npz":
        assert (none["label"], none["name"]) == (-1, "")
        assert np.isnan(none["probability"])
    else:
        assert not none["name"]  # .csv knows no null of texts
        assert none["label"] is none["probability"] is None


@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".csv"])
def test_so_has_a_row_without_a_vector(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"answers{kind}"
    write_answers(file, VECTORS)
    first, none = rows_in(file)
    assert (first["answered"], none["answered"]) == (True, False)
    if kind == ".csv":
        assert (none["embedding_0"], none["embedding_1"]) == (None, None)
        assert first["embedding_1"] == pytest.approx(0.8)
    else:
        assert none["embedding"] is None
        assert first["embedding"] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".csv", ".npz"])
def test_an_older_file_stays_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = tmp_path / f"answers{kind}"
    write_answers(file, CLASSES)
    before = file.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.msgspec.json, "encode", full)
    monkeypatch.setattr(pyarrow.csv, "write_csv", full)
    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space"):
        write_answers(file, CLASSES)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(file.name, before)]
