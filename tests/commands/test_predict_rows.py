"""`skipserve predict` with a file of rows of a network that was brought."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import skipserve
from skipserve.cli import app
from skipserve.sources.columns import read_columns

pytestmark = pytest.mark.slow


def test_a_file_is_answered_in_batches(
    brought: Path, points: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought)
    rows, out = tmp_path / "rows.npz", tmp_path / "answers.jsonl"
    np.savez(rows, point=points)
    ran = CliRunner().invoke(
        app, ["predict", "moons", str(rows), "--out", str(out), "--risk", "5%"]
    )
    assert ran.exit_code == 0, ran.output
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    engine = skipserve.open("artifacts/moons")
    expected = engine.predict(points, risk=0.05)
    assert [row["label"] for row in answers] == expected.labels.tolist()
    assert [row["depth_run"] for row in answers] == expected.depth_run.tolist()


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".npz"])
def test_answers_are_written_as_asked(
    kind: str,
    brought: Path,
    points: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(brought)
    rows, out = tmp_path / "rows.npz", tmp_path / f"answers{kind}"
    np.savez(rows, point=points)
    ran = CliRunner().invoke(app, ["predict", "moons", str(rows), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    columns = read_columns(out)
    assert (columns["depth_run"] == 4).all()
    assert len(columns["label"]) == len(points)
