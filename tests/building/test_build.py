"""Build files and the build line: clear errors, and nothing is done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import ROOT
from small_project import build
from unbuilt import SMALL, change, unbuilt

from skipserve.artifacts import parity
from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.errors import ConfigError, ParityError


@pytest.fixture
def project(tmp_path):
    return unbuilt(tmp_path)


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
        ("[export]", '[serving]\nrisk = "50"\n[export]', "risk = '50': expected a number$"),
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
        (
            "[data]",
            '[task]\nkind = "regress"\ntolerence = 1.0\n[data]',
            "task: unknown key 'tolerence'; did you mean 'tolerance'",
        ),
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
