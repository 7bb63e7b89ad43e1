"""Inspecting a network block by block, with a verdict that can say no."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from skipserve.cli import app
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.networks import build_network, parse_network
from skipserve.reporting.figures import block_figure
from skipserve.reporting.inspect import inspect_model, rows
from skipserve.reporting.model import find_model
from skipserve.reporting.readings import measure_blocks, read_network
from skipserve.reporting.sample import take_sample
from skipserve.reporting.verdict import Times, hindrance, prospect, sentence
from skipserve.routing.judge import ByDepth

DECISION_S = 8e-6
BLOCK_S = 100e-6  # many decisions


def network(**changes):
    config = {"family": "mlp", "inputs": [2], "classes": 3, "depth": 4, "width": 8, **changes}
    torch.manual_seed(0)
    return build_network(parse_network(config)).eval()


def readings(*rows_of_labels, blocks=None):
    labels = np.array(rows_of_labels)
    at = np.array(blocks or range(1, labels.shape[1] + 1))
    return ByDepth(at, labels == labels[:, -1:])


@pytest.fixture(scope="module")
def model(checkpoint):
    return find_model(str(checkpoint))


@pytest.fixture(scope="module")
def sample(model):
    return take_sample(model)


@pytest.mark.parametrize("changes", [{}, {"connection": "gated"}, {"norm": "pre"}])
def test_a_reading_is_the_answer_of_the_network_cut_there(changes):
    whole, inputs = network(**changes), torch.randn(50, 2)
    found = read_network(whole, inputs.numpy())
    assert found.blocks.tolist() == [0, 1, 2, 3, 4]
    for at, blocks in enumerate(found.blocks):
        stream = whole.stem(whole.scaling(inputs))
        for block in whole.blocks[:blocks]:
            stream = block(stream)
        assert (found.answers[:, at].argmax(1) == whole.answer(stream).argmax(dim=1).numpy()).all()


def test_the_oracle_stops_at_the_first_answer_that_is_that_of_full_depth():
    found = readings([1, 0, 2, 2], [2, 2, 2, 2], [2, 0, 2, 2], [0, 1, 0, 2])
    assert found.oracle.tolist() == [3, 1, 1, 4]


def test_what_blocks_do_is_what_the_definitions_say():
    whole, inputs = network(), torch.randn(30, 2)
    found = measure_blocks(whole, inputs.numpy())
    with torch.no_grad():
        streams = np.stack([stream.double().numpy() for stream in whole.streams(inputs)])
    length = np.linalg.norm(streams, axis=2)
    np.testing.assert_allclose(found.norm, length.mean(axis=1), rtol=1e-6)
    change = np.linalg.norm(np.diff(streams, axis=0), axis=2) / length[:-1]
    np.testing.assert_allclose(found.update, change.mean(axis=1), rtol=1e-6)
    cosine = (streams[1:] * streams[:-1]).sum(axis=2) / length[1:] / length[:-1]
    np.testing.assert_allclose(found.influence, (1 - cosine).mean(axis=1), rtol=1e-5, atol=1e-9)


def test_a_block_that_does_nothing_has_no_influence():
    whole = network()
    torch.nn.init.zeros_(whole.blocks[1].inner[0].weight)
    torch.nn.init.zeros_(whole.blocks[1].inner[0].bias)
    found = measure_blocks(whole, np.random.default_rng(0).normal(size=(20, 2)).astype("f4"))
    assert found.update[1] == 0
    assert found.influence[1] == pytest.approx(0, abs=1e-12)
    assert found.norm[2] == found.norm[1]
    assert (found.update[[0, 2, 3]] > 0).all()


# 400 rows: at 4 blocks most answers stand, and at 9 all; a tenth of them needs those 9.
GAIN = readings(*[[0] * 12] * 200, *[[1] * 12] * 160, *[[0] * 8 + [1] * 4] * 40)
FULL = np.array([0] * 200 + [1] * 200)
SAME = readings(*[[0, 1]] * 400)
# All but one row stand after one block: a fixed depth has everything.
NO_GAIN = readings(*[[0] * 12] * 200, *[[1] * 12] * 199, [0, *[1] * 11])


def judged(found, block_s=BLOCK_S):
    return prospect(found, range(1, 12), 0.01, Times(block_s, DECISION_S))


def test_a_gain_is_worth_going_on_for():
    found = judged(GAIN)
    assert (found.fixed, found.fixed_disagreement) == (9, 0)
    assert found.oracle == found.staged == pytest.approx(0.9 * 1 + 0.1 * 9)
    assert found.asked == pytest.approx(found.oracle)
    assert found.gain == pytest.approx((9 - 1.8 - 1.8 * DECISION_S / BLOCK_S) / 12)
    said = sentence(found)
    assert "at most 85% of the blocks (the oracle runs 1.8 of 12" in said
    assert "stopping every row after block 9 saves 25% already" in said
    assert "Going on is worth it" in said


def test_no_gain_beyond_a_fixed_depth_is_said():
    said = sentence(judged(NO_GAIN))
    assert "stopping every row after block 1 saves 92% already and changes 0.25%" in said
    assert "Going on is not worth it" in said
    assert "cut the network off after block 1 instead" in said


def test_blocks_shorter_than_a_decision_are_not_worth_it():
    said = sentence(judged(GAIN, block_s=1e-6))
    assert "Going on is not worth it: a block takes 1 µs" in said
    assert f"a decision about {DECISION_S * 1e6:.0f} µs" in said


def test_a_depth_of_no_block_at_all_is_said_in_words():
    stem = readings(*[[0, 0, 0]] * 200, *[[1, 1, 1]] * 200, blocks=[0, 1, 2])
    found = prospect(stem, [0, 1], 0.01, Times(BLOCK_S, DECISION_S))
    assert (found.fixed, found.oracle, found.asked) == (0, 0, 1)
    assert "stopping every row before the first block saves 100% already" in sentence(found)


def test_a_network_whose_answer_needs_every_block_is_not_worth_it():
    late = readings(*[[0] * 11 + [1]] * 200, *[[1] * 11 + [0]] * 200)
    said = sentence(judged(late))
    assert "no fixed depth saves anything within a risk of 1%" in said
    assert "Going on is not worth it" in said
    assert "train it to exit early first" in said


def test_a_fixed_depth_counts_only_while_all_deeper_ones_hold():
    # After block 2 all is right by luck, after block 3 it is not.
    lucky = readings(*[[0, 0, 1, 0]] * 200, *[[1, 1, 0, 1]] * 200)
    assert prospect(lucky, [1, 2, 3], 0.01, Times(BLOCK_S, DECISION_S)).fixed == 4


@pytest.mark.parametrize(
    ("found", "labels", "skippable", "says"),
    [
        (GAIN, None, False, "No: a plain network has nothing to skip"),
        (SAME, None, True, "No: the network gives all 400 rows the same"),
        (GAIN, np.zeros(400, dtype=int), True, "no better than always naming the largest class"),
        (readings([0, 1], [1, 0]), None, True, "These 2 rows cannot tell"),
        (GAIN, None, True, ""),
        (GAIN, FULL, True, ""),
    ],
)
def test_where_the_question_does_not_arise_that_is_said(found, labels, skippable, says):
    if labels is not None:
        found = replace(found, right=np.repeat((labels == FULL)[:, None], 12, axis=1))
    said = hindrance(found, labels, 0.01, skippable, one_answer=found is SAME)
    assert said.startswith(says) if says.startswith(("No", "These")) else says in said
    assert bool(said) == bool(says)


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
    assert rows(found)[-1][4] == "–"
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
