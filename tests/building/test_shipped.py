"""Weights that ship with a build file: taken where they fit, else trained with one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from running import ROOT
from safetensors.torch import load_file, save_file
from small_project import build
from unbuilt import change, unbuilt

from skipserve.building.buildfile import read_build_file
from skipserve.building.products import take_or_train, train
from skipserve.files import sha256_of
from skipserve.training.history import WEIGHTS, read_history
from skipserve.training.recipes import open_recipe
from skipserve.training.shipped import data_hash, difference, read_shipped, ship, take


@pytest.fixture
def project(tmp_path):
    return unbuilt(tmp_path)


def checkpoint_of(project) -> list[str]:
    """Make the checkpoint as a build does; what it says."""
    said: list[str] = []
    asked = read_build_file(project / "export" / "small.toml")
    take_or_train(asked, lambda epoch: None, said.append, lambda doing, share: None)
    return said


@pytest.fixture
def shipping(project):
    """A project whose weights ship, moved a little so that no training gives them."""
    made = project / "trained"
    train(read_build_file(project / "export" / "small.toml"), made, lambda epoch: None)
    moved = {key: value * 1.01 for key, value in load_file(made / WEIGHTS).items()}
    save_file(moved, made / WEIGHTS)
    shipped = project / "export" / "weights" / "small.safetensors"
    ship(shipped, made, open_recipe("two_moons"))
    return project, shipped


def test_weights_that_ship_are_taken_with_their_curves_and_only_once(shipping):
    project, shipped = shipping
    taken = project / "checkpoints" / "small"
    assert build(project) == ["train", "export", "package"]
    assert sha256_of(taken / WEIGHTS) == sha256_of(shipped)
    for curve in ("epochs.csv", "gradients.csv"):
        assert (taken / curve).read_text() == (project / "trained" / curve).read_text()
    # What was taken is kept when the copy is damaged later.
    shipped.write_bytes(b"damaged")
    assert build(project) == []


def test_a_build_that_takes_weights_says_where_they_are(shipping):
    project, _ = shipping
    assert checkpoint_of(project) == ["small: weights from export/weights/small.safetensors"]


def test_a_build_file_that_says_something_else_trains(shipping):
    project, shipped = shipping
    change(project, "epochs = 1", "epochs = 2")
    (line,) = checkpoint_of(project)
    assert line.endswith(
        "small.safetensors was made with another training.epochs; training instead"
    )
    assert len(read_history(project / "checkpoints" / "small")) == 2
    change(project, "epochs = 2", "epochs = 1")
    checkpoint_of(project)
    assert sha256_of(project / "checkpoints" / "small" / WEIGHTS) == sha256_of(shipped)


def changed(shipped, **values):
    file = shipped.with_suffix(".json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def truncate(shipped):
    shipped.write_bytes(shipped.read_bytes()[:-100])


def silence(shipped):
    # Such weights load; a network whose code changed under them would answer as wrongly.
    save_file({key: torch.zeros_like(value) for key, value in load_file(shipped).items()}, shipped)
    changed(shipped, weights_sha256=sha256_of(shipped), accuracy=1.0)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "is damaged"),
        (silence, "of the test rows, expected 100.0%"),
        (lambda shipped: shipped.unlink(), "is missing"),
        (lambda shipped: shipped.with_suffix(".json").unlink(), "cannot be read"),
        (lambda shipped: shipped.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda shipped: shipped.with_suffix(".json").write_text("[]"), "cannot be read"),
        (lambda shipped: changed(shipped, data_sha256="0" * 64), "with other rows of two_moons"),
        (lambda shipped: changed(shipped, network={"family": "gone"}), "with another network"),
        (lambda shipped: changed(shipped, recipe="digits"), "with another recipe"),
    ],
)
def test_weights_that_cannot_be_taken_are_trained_with_one_line(shipping, damage, says):
    project, shipped = shipping
    damage(shipped)
    (line,) = checkpoint_of(project)
    assert says in line
    assert line.endswith("; training instead")
    assert_trained(project / "checkpoints" / "small" / WEIGHTS, project)


def test_the_command_train_trains_whatever_ships(shipping):
    project, _ = shipping
    command = [sys.executable, "-m", "skipserve.cli", "train", "export/small.toml"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    assert_trained(project / "checkpoints" / "small" / WEIGHTS, project)


def assert_trained(weights, project):
    moved = load_file(project / "trained" / WEIGHTS)
    for key, value in load_file(weights).items():
        torch.testing.assert_close(value * 1.01, moved[key])


@pytest.mark.parametrize(
    "weights", sorted((ROOT / "export" / "weights").glob("*.safetensors")), ids=lambda w: w.stem
)
def test_the_weights_in_the_repository_are_what_their_build_files_ask_for(weights):
    asked = read_build_file(ROOT / "export" / f"{weights.stem}.toml")
    assert asked.shipped == weights
    shipped, trained = read_shipped(weights), asked.trained
    assert shipped is not None
    assert difference(shipped, trained.recipe, trained.network, trained.training) is None
    assert data_hash(trained.recipe.draw("train")) == shipped.data_sha256
    assert take(weights, trained.recipe, trained.network, trained.training) is not None
    assert weights.stat().st_size < 4e6


def test_what_make_serve_serves_comes_with_its_weights():
    (served,) = [
        line.split("=")[1].split()
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith("MODELS =")
    ]
    kept = {file.stem for file in (ROOT / "export" / "weights").glob("*.safetensors")}
    assert set(served) <= kept
