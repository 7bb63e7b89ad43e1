"""What a shell offers: commands, options, and the models of the working directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running import cli
from typer.testing import CliRunner

from skipserve.cli import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in ("export/moons.toml", "artifacts/moons/manifest.json", "model_store/tides.mar"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.mar").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("skipserve cert", ["certificate", "certify"]),
        ("skipserve router o", ["off", "on"]),
        ("skipserve build ", ["export/moons.toml"]),
        ("skipserve inspect ", ["moons", "tides"]),
        ("skipserve predict m", ["moons"]),
        ("skipserve serve ", ["tides"]),
        ("skipserve serve --model-store elsewhere ", ["other"]),
        ("skipserve versions t", ["tides"]),
        ("skipserve certify ", ["artifacts/moons", "model_store/tides.mar"]),
        ("skipserve verify certificate.json ", ["artifacts/moons", "model_store/tides.mar"]),
        ("skipserve loadtest --model ", ["moons", "tides"]),
        ("skipserve serve --server ", ["granian", "torchserve"]),
        ("skipserve top --js", ["--json"]),
    ],
)
def test_a_shell_is_offered(folder: Path, typed: str, offered: list[str]) -> None:
    words = typed.split(" ")
    environment = {
        "_SKIPSERVE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(app, [], prog_name="skipserve", env=environment)
    assert sorted(done.stdout.split()) == offered


def test_the_command_itself_completes_and_shows_its_script(folder: Path) -> None:
    environment = {"_SKIPSERVE_COMPLETE": "complete_bash", "COMP_WORDS": "skipserve vers"}
    done = subprocess.run(
        cli(), env={**environment, "COMP_CWORD": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["versions"]
