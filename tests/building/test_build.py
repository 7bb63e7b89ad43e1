"""Build files and the build line: clear errors, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skipserve.artifacts import parity
from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.products import take_or_train, train
from skipserve.building.steps import run_steps
from skipserve.errors import ConfigError, ParityError
from skipserve.files import sha256_of
from skipserve.training.history import WEIGHTS, read_history
from skipserve.training.recipes import open_recipe
from skipserve.training.shipped import data_hash, difference, read_shipped, ship, take

ROOT = Path(__file__).parents[2]
SMALL = """
name = "small"
recipe = "two_moons"
[network]
depth = 3
width = 8
[training]
epochs = 1
[export]
formats = ["onnx"]
precisions = ["fp32"]
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "export").mkdir()
    shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
    (tmp_path / "export" / "small.toml").write_text(SMALL)
    return tmp_path


def build(project) -> list[str]:
    said: list[str] = []
    run_steps(read_build_file(project / "export" / "small.toml"), lambda epoch: None, said.append)
    return [line.split()[1] for line in said if line.endswith("…")]


def change(project, old, new):
    file = project / "export" / "small.toml"
    file.write_text(file.read_text().replace(old, new))


def test_a_build_redoes_only_what_its_inputs_changed(project):
    assert build(project) == ["train", "export", "package"]
    assert build(project) == []
    (project / "export" / "small.toml").touch()
    assert build(project) == []
    change(project, "[export]", "[serving]\nbatch_size = 4\n[export]")
    assert build(project) == ["package"]
    change(project, '["fp32"]', '["fp32", "fp16"]')
    assert build(project) == ["export", "package"]
    change(project, "epochs = 1", "epochs = 2")
    assert build(project) == ["train", "export", "package"]


@pytest.mark.parametrize(
    ("lost", "redone"),
    [
        ("checkpoints/small/checkpoint.safetensors", "train"),
        ("artifacts/small/manifest.json", "export"),
        ("artifacts/small/weights.fp32.bin", "export"),
        ("model_store/small.mar", "package"),
    ],
)
def test_a_lost_or_damaged_output_is_made_again(project, lost, redone):
    build(project)
    (project / lost).write_bytes(b"damaged")
    assert redone in build(project)
    assert build(project) == []
    open_artifact(project / "artifacts" / "small")


def test_an_artifact_that_fails_parity_is_not_written(project, monkeypatch):
    build(project)
    before = (project / "artifacts" / "small" / "manifest.json").read_bytes()
    monkeypatch.setitem(parity.TOLERANCES, "fp32", 0.0)
    change(project, "epochs = 1", "epochs = 2")
    with pytest.raises(ParityError, match="allowed are 0"):
        build(project)
    assert (project / "artifacts" / "small" / "manifest.json").read_bytes() == before
    assert [path.name for path in (project / "artifacts").iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs = 1", "epoch = 1", r"unknown key 'epoch'; did you mean 'epochs'"),
        ("[training]", "[trainig]", r"unknown key 'trainig'; did you mean 'training'"),
        ('recipe = "two_moons"', "", r"name a recipe to train .* or a \[source\] to bring one"),
        ("depth = 3", "inputs = [2]", "comes with the recipe"),
        ("depth = 3", "depth = true", r"depth = true: expected a whole number"),
        ('formats = ["onnx"]', 'formats = ["tflite"]', "'onnx' or 'torchscript'"),
        ('formats = ["onnx"]', "formats = []", "formats"),
        ('name = "small"', 'name = "../small"', "name"),
        ("[network]", "[network", "is not TOML"),
        ("[export]", "[router]\nrisks = 0.01\n[export]", r"expected a list, such as \[0.01\]$"),
        (
            "[export]",
            '[router]\nrisks = ["1%"]\n[export]',
            "small.toml: router.risks.0 = '1%': expected a number, such as 0.01$",
        ),
        (
            "[export]",
            "[exits]\nat = [4, 2]\n[export]",
            r"toml: exits: at = \[4, 2\] must increase$",
        ),
        ("[export]", '[exits]\nat = "no"\n[export]', "exits.at = 'no': expected 'auto' or a list$"),
        ('name = "small"', 'name = "a b"', "name = 'a b': expected letters, digits and _, and no"),
        ("[export]", "[serving]\nrisk = true\n[export]", "serving.risk = true: expected a number$"),
        (
            "[export]",
            "[serving]\nrisk = 0.02\noverload_risk = 0.01\n[export]",
            "toml: serving: overload_risk is 0.01, expected more than risk, 0.02$",
        ),
        (
            "[export]",
            "[serving]\noverload_risk = 0.02\n[export]",
            r"serving.overload_risk has no effect without serving.risk; set risk too",
        ),
        (
            "[export]",
            "[serving]\nfoo = 1\nbar_ = 1\n[export]",
            r"unknown key 'serving.foo'; known keys: backend, .*, metrics; unknown key '[^']*bar_'",
        ),
        (
            "[export]",
            '[source]\nonx = "a.onnx"\n[export]',
            "unknown key 'source.onx'; did you mean 'onnx'",
        ),
        ("[export]", "[serving]\nmax_batch_delay_ms = -1\n[export]", "max_batch_delay_ms"),
        ("[export]", '[router]\ncertificate = "online"\n[export]', "certificate = 'online'"),
        (
            "[export]",
            '[router]\ncertificate = "earned"\npolicy = "skip"\n[export]',
            r"certificate = 'earned' needs policy = 'exit'",
        ),
        (
            "[export]",
            '[router]\ncertificate = "both"\nper_class = true\n[export]',
            "does not go with per_class",
        ),
        (
            "[export]",
            '[router]\ncertificate = "earned"\n[serving]\nevidence = 0.0\n[export]',
            r"would never earn anything; set evidence = 0\.01",
        ),
    ],
)
def test_a_wrong_build_file_names_the_key_and_the_way_out(project, old, new, says):
    change(project, old, new)
    with pytest.raises(ConfigError, match=says):
        read_build_file(project / "export" / "small.toml")


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", "models/small", "export"])
def test_what_is_built_stays_with_its_file(tmp_path, monkeypatch, place):
    root = tmp_path / "project"
    shutil.copytree(ROOT / "handlers", root / "handlers")
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.toml").write_text(SMALL)
    if place == "models/small":
        (root / "handlers").rename(folder / "handlers")
    monkeypatch.chdir(folder)
    run_steps(read_build_file(Path("small.toml")), lambda epoch: None, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]
    home = root if place in (".", "export") else folder
    made = {".build", "artifacts", "checkpoints", "handlers", "model_store"}
    there = {path.name for path in home.iterdir()}
    assert there - {"small.toml", "export"} == made


BROUGHT = """
name = "brought"
[source]
onnx = "model.onnx"
[data]
rows = "rows.npz"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[data]", 'module = "a:b"\n[data]', "name one of onnx = 'FILE', module"),
        ('onnx = "model.onnx"', "", "name one of onnx = 'FILE', module"),
        ('[data]\nrows = "rows.npz"', "", r"\[source\] needs \[data\], with rows = 'FILE'"),
        (
            "[source]",
            "[training]\nepochs = 1\n[source]",
            "training belongs to networks trained here",
        ),
        ('name = "brought"', 'name = "brought"\nrecipe = "two_moons"', "recipe belongs to"),
        ("[data]", "[exits]\nat = [2, 1]\n[data]", r"exits: at = \[2, 1\] must increase"),
        ("[data]", "[exits]\nat = []\n[data]", r"must increase"),
        ("[data]", '[exits]\nhead = "shared"\n[data]', "did you mean 'heads'"),
        ("[data]", "[router]\nrisks = [2.0]\n[data]", "router.risks"),
    ],
)
def test_so_does_that_of_a_network_that_was_brought(tmp_path, old, new, says):
    file = tmp_path / "brought.toml"
    file.write_text(BROUGHT)
    brought = read_build_file(file)
    assert brought.brought is not None
    assert (brought.export.formats, brought.export.precisions) == (("onnx",), ("fp32",))
    with pytest.raises(ConfigError, match="its network is not trained here"):
        _ = brought.trained
    assert old in BROUGHT
    file.write_text(BROUGHT.replace(old, new))
    with pytest.raises(ConfigError, match=says):
        read_build_file(file)


def test_data_comes_with_a_recipe(project):
    change(project, "[network]", '[data]\nrows = "rows.npz"\n[network]')
    with pytest.raises(ConfigError, match=r"\[data\] comes with the recipe; leave it out"):
        read_build_file(project / "export" / "small.toml")


def test_the_build_files_in_export_are_read(project):
    for file in (ROOT / "export").glob("*.toml"):
        assert read_build_file(file).name == file.stem


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["package", "export/small.toml"], "is not an artifact"),
        (["export", "export/small.toml"], "is not a checkpoint"),
        (["train", "export/small.toml", "--epochs", "0"], "'--epochs': '0': expected at least 1"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_status_2(project, command_line, arguments, says):
    ended = command_line(*arguments, folder=project)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_diverged_run_is_an_error_and_saves_nothing(project, command_line):
    change(project, "depth = 3\nwidth = 8", "depth = 20\nwidth = 64")
    ended = command_line("train", "export/small.toml", "--no-clip", folder=project)
    assert ended.code == 2
    assert "diverged in epoch 1" in ended.err
    assert not (project / "checkpoints").exists()


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
