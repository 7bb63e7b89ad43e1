"""Inspecting a model: what is shown of its blocks, on which rows, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from skipserve.cli import app
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.reporting.figures import block_figure
from skipserve.reporting.inspect import columns, inspect_model, rows
from skipserve.reporting.model import find_model
from skipserve.reporting.sample import take_sample


@pytest.fixture(scope="module")
def model(checkpoint):
    return find_model(str(checkpoint))


@pytest.fixture(scope="module")
def sample(model):
    return take_sample(model)


def test_an_inspection_ends_with_full_depth(model, sample):
    found = inspect_model(model, sample, 0.01)
    assert found.agreement[-1] == 1
    assert found.accuracy[-1] == pytest.approx(model.checkpoint.run.accuracy)
    lines = rows(found)
    assert [line[0] for line in lines] == ["stem", "1", "2", "3", "4"]
    assert lines[-1][-1] == "100.00%"
    assert found.verdict
    assert block_figure(found).png.startswith(b"\x89PNG")


def test_without_labels_accuracy_is_left_out_and_that_is_said(model, sample):
    found = inspect_model(model, replace(sample, labels=None), 0.01)
    assert found.accuracy is None
    assert any("without labels" in note for note in found.notes)
    assert columns(found) == ("block", "norm", "update", "influence", "agrees")
    assert {len(line) for line in rows(found)} == {5}
    assert "right" not in block_figure(found).svg


ROWS = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("data", "labels", "says"),
    [
        (
            np.zeros((3, 5)),
            None,
            r"rows.npy: a row of the network has shape \[2\], got rows of shape \[5\]",
        ),
        (np.float32(1), None, "every column must hold one entry a row"),
        (np.zeros((0, 2)), None, "holds no row"),
        (np.array([["a", "b"]]), None, "must be numbers, got <U1"),
        (np.array([[0, 0], [np.nan, 0]]), None, "row 1 holds NaN"),
        (np.array([[1e300, 0]]), None, "row 0 holds NaN, an infinity or a number beyond float32"),
        (None, np.zeros(3, dtype=int), "labels without --data"),
        (ROWS, np.zeros(2, dtype=int), r"must have shape \[3\], one for each row; got \[2\]"),
        (ROWS, np.zeros(3), "must hold whole numbers, got float64"),
        (ROWS, np.array([0, 1, 2]), "row 2 has class 2, small knows 0 … 1"),
        (ROWS, np.array([0, -1, 0]), "row 1 has class -1"),
    ],
)
def test_rows_or_labels_that_do_not_fit_are_refused(model, tmp_path, data, labels, says):
    rows, classes = None if data is None else tmp_path / "rows.npy", None
    if data is not None:
        np.save(rows, data)
    if labels is not None:
        classes = str(tmp_path / "labels.npy")
        np.save(classes, labels)
    with pytest.raises(ConfigError, match=says):
        take_sample(model, rows, classes)


def test_rows_of_any_number_type_are_taken(model, tmp_path):
    for dtype in ("f2", "f8", "i8", "u1"):
        np.save(tmp_path / "rows.npy", np.ones((4, 2), dtype=dtype))
        assert take_sample(model, tmp_path / "rows.npy").inputs.dtype == np.float32


def test_a_table_has_its_labels_in_a_column(model, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("x,y,kind\n0.5,1,1\n0,2,0\n")
    sample = take_sample(model, table, "kind")
    assert sample.inputs.tolist() == [[0.5, 1], [0, 2]]
    assert sample.labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="did you mean 'kind'"):
        take_sample(model, table, "kinds")


@pytest.fixture
def project(checkpoint, artifact, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints" / "small")
    shutil.copytree(artifact.directory, tmp_path / "artifacts" / "small")
    return tmp_path


@pytest.mark.parametrize("named", ["small", "artifacts/small", "checkpoints/small"])
def test_a_model_is_found_by_name_or_directory_with_what_belongs_to_it(project, monkeypatch, named):
    monkeypatch.chdir(project)
    found = find_model(named)
    assert (found.name, found.depth, found.task.classes) == ("small", 4, 2)
    assert found.signature.inputs[0].row_shape == (2,)
    assert found.checkpoint.sha256 == found.artifact.manifest.source.sha256
    assert not found.notes


def test_a_half_that_is_missing_or_of_another_run_is_left_out_and_said(project, monkeypatch):
    monkeypatch.chdir(project)
    weights = project / "checkpoints" / "small" / "checkpoint.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = find_model("artifacts/small")
    assert found.checkpoint is None
    assert "is not what artifacts/small was exported from" in found.notes[0]
    found = find_model("checkpoints/small")
    assert found.artifact is None
    assert "was not exported from checkpoints/small" in found.notes[0]
    shutil.rmtree(project / "checkpoints")
    assert "No checkpoint stands at" in find_model("small").notes[0]


def test_what_is_no_model_is_refused_with_a_hint(project, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        find_model("smal")
    with pytest.raises(ConfigError, match="there are small"):
        find_model("wholly_different")
    with pytest.raises(ConfigError, match=r"neither an artifact .* nor a checkpoint"):
        find_model("artifacts")
    (project / "small").mkdir()
    assert find_model("small").artifact is not None
    (project / "small").rmdir()
    (project / "artifacts" / "small" / "plain.fp32.onnx").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="is not the file the manifest describes"):
        find_model("small")
    (project / "checkpoints" / "small" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        find_model("checkpoints/small")
    shutil.rmtree(project / "artifacts")
    shutil.rmtree(project / "checkpoints")
    with pytest.raises(ConfigError, match="make one with `skipserve build"):
        find_model("small")


def test_an_artifact_without_router_or_checkpoint_cannot_be_inspected(artifact):
    found = find_model(str(artifact.directory))
    with pytest.raises(ConfigError, match="has no router, and no checkpoint belongs to it"):
        inspect_model(found, take_sample(found), 0.01)


def test_the_command_prints_a_line_a_block_and_ends_with_the_verdict(project, monkeypatch):
    monkeypatch.chdir(project)
    np.save("rows.npy", take_sample(find_model("small")).inputs[:400])
    done = CliRunner().invoke(app, ["inspect", "small"])
    assert done.exit_code == 0, done.output
    assert "influence" in done.stdout and "–" not in done.stdout
    assert "oracle" in done.stdout.splitlines()[-1]
    asked = ["--data", "rows.npy", "--risk", "5%", "--json"]
    done = CliRunner().invoke(app, ["inspect", "small", *asked])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["rows"], found["prospect"]["risk"]) == (400, 0.05)
    assert "oracle" in found["verdict"]
    assert [one["accuracy"] for one in found["depths"]] == [None] * len(found["depths"])
    assert found["depths"][-1]["agreement"] == 1
    assert len(found["stream"]["influence"]) == found["depths"][-1]["blocks"]
    assert (Path("reports") / "small" / "blocks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["small", "--data", "missing.npy"], "missing.npy is not there; name a file of rows"),
        (["missing"], "no name in artifacts/ or checkpoints/"),
    ],
)
def test_the_command_refuses_what_it_cannot_use(project, monkeypatch, arguments, says):
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, ["inspect", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)


def test_a_brought_model_is_inspected_with_its_test_rows_or_given_ones(brought, tmp_path):
    found = find_model("moons", brought)
    assert (found.checkpoint, found.recipe, found.notes) == (None, None, ())
    sample = take_sample(found)
    assert sample.source == "the test split of rows.npz"
    assert 0 < len(sample) < 10_000
    seen = inspect_model(found, sample, 0.05)
    assert seen.readings.blocks[-1] == 4
    assert seen.agreement[-1] == 1
    assert seen.accuracy[-1] > 0.8
    assert "oracle" in seen.verdict
    np.savez(tmp_path / "some.npz", point=sample.inputs[:50], kind=sample.labels[:50])
    given = take_sample(found, tmp_path / "some.npz", "kind")
    assert (given.labels == sample.labels[:50]).all()
    with pytest.raises(ConfigError, match="no column 'kin' of labels; did you mean 'kind'"):
        take_sample(found, tmp_path / "some.npz", "kin")


def test_a_brought_model_without_its_build_file_asks_for_rows(brought, tmp_path):
    shutil.copytree(brought / "artifacts", tmp_path / "artifacts")
    with pytest.raises(ConfigError, match=r"was brought, and there is no .* name some with --data"):
        take_sample(find_model("moons", tmp_path))
