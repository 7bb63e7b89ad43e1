"""Rows of a brought network: enough in every part, and of every class in the first of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from residual_graphs import CLASSES, WIDTH, wide

from skipserve.errors import ConfigError
from skipserve.graph.memory import open_model
from skipserve.sources.brought import brought_origin, brought_rows
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.tasks import TaskConfig


def drawn(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def brought(
    folder: Path,
    rows: NDArray[np.float32],
    fit: NDArray[np.float32] | None = None,
    queries: NDArray[np.int64] | None = None,
) -> Brought:
    onnx.save(wide(), folder / "net.onnx")
    columns = {"x": rows} if queries is None else {"x": rows, "query": queries}
    np.savez(folder / "rows.npz", **columns)  # type: ignore[arg-type]
    if fit is not None:
        np.savez(folder / "fit.npz", x=fit)
    task = TaskConfig() if queries is None else TaskConfig(kind="score", tolerance=1.0, top=1)
    data = DataConfig(
        rows="rows.npz",
        fit=None if fit is None else "fit.npz",
        query=None if queries is None else "query",
    )
    return Brought(source=SourceConfig(onnx="net.onnx"), data=data, task=task)


def test_a_file_in_the_order_of_its_classes_is_brought(tmp_path: Path) -> None:
    rows = drawn(4_000)
    answers = open_model(wide()).run(None, {"x": rows})[0].argmax(axis=1)
    in_order = np.concatenate([rows[answers == one][:1_000] for one in (0, 1)])
    assert len(in_order) == 2_000
    for fit in (None, in_order[::2]):
        rest = in_order if fit is None else in_order[1::2]
        origin, _ = brought_origin(brought(tmp_path, rest, fit), tmp_path)
        found = np.bincount(origin.expected.answers.argmax(axis=1), minlength=CLASSES)
        np.testing.assert_allclose(found / found.sum(), [0.5, 0.5, 0], atol=0.15)


MANY = drawn(300)
ALIKE = r"rows.npz has \d+ rows to .* at least (50|10)[:,].* differ"
REFUSED = [
    (MANY, MANY, r"rows.npz holds 300 rows, of which 300 are left out because .* in fit.npz; it"),
    (drawn(400), drawn(400)[:250], "holds 400 rows, of which 250 are left out .* at least 200"),
    (drawn(100), None, "holds 100 rows; it takes at least 200"),
    (MANY, drawn(1, seed=9), "fit.npz has 1 rows to fit exits to; it takes at least 50"),
    (
        MANY[:1].repeat(300, axis=0),
        None,
        ALIKE,
    ),
    (
        MANY[:3].repeat(100, axis=0),
        None,
        ALIKE,
    ),
]


@pytest.mark.parametrize(("rows", "fit", "says"), REFUSED)
def test_too_few_rows_in_a_part_are_told(
    tmp_path: Path, rows: NDArray[np.float32], fit: NDArray[np.float32] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        brought_rows(brought(tmp_path, rows, fit), tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_three_queries_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has \d+ rows to .* at least 10: .* of a query"):
        brought_rows(brought(tmp_path, MANY, queries=np.arange(300) % 3), tmp_path)
