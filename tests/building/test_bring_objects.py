"""Bringing objects in memory: nothing of another model is touched before everything is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import skipserve
from skipserve.errors import ConfigError
from skipserve.sources.arrays import write_arrays
from skipserve.sources.columns import read_columns

ROWS = {"x": np.zeros((300, 2), np.float32)}


def everything(folder: Path) -> dict[str, bytes]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_bytes() for one in files}


@pytest.mark.parametrize("name", ["../escaped", "a/b", "a b", "", "_x"])
def test_a_wrong_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    module = torch.nn.Linear(2, 2), torch.zeros(2, 2)
    with pytest.raises(ConfigError, match="--name is"):
        skipserve.bring(module, ROWS, name=name, project=project)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("said", [{"risk": 0.02}, {"task": "regress", "tolerance": 1.0}])
def test_the_sources_of_another_model_of_the_name_stay(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "net.toml").write_text("# of another network\n")
    (tmp_path / "sources").mkdir()
    for kind in ("onnx", "npz"):
        (tmp_path / "sources" / f"net.{kind}").write_bytes(b"of another network")
    before = everything(tmp_path)
    module = torch.nn.Linear(2, 2), torch.zeros(2, 2)
    with pytest.raises(ConfigError, match="is there already and says something else"):
        skipserve.bring(module, ROWS, name="net", project=tmp_path, **said)
    assert everything(tmp_path) == before


def test_an_array_may_have_any_name(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3), "args": np.ones((3, 2)), "a b": np.array(["x", "yy", "z"])}
    write_arrays(tmp_path / "rows.npz", arrays)
    read = read_columns(tmp_path / "rows.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    assert [one.name for one in tmp_path.iterdir()] == ["rows.npz"]


def test_texts_are_written_as_texts_and_other_objects_are_refused(tmp_path: Path) -> None:
    texts = np.array(["good", "bad"], object)
    write_arrays(tmp_path / "rows.npz", {"text": texts})
    assert read_columns(tmp_path / "rows.npz")["text"].tolist() == ["good", "bad"]
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="the array 'text' holds Python objects"):
        write_arrays(tmp_path / "rows.npz", {"text": np.array([{}, "bad"], object)})
    assert everything(tmp_path) == before
