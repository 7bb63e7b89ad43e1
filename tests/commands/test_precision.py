"""INT8 files are certified and served where they are asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
from command_line import CommandLine
from running import serving
from small_project import build
from typer.main import get_command

from skipserve.artifacts.manifest import Precision
from skipserve.artifacts.serving import ServingConfig
from skipserve.cli import app


@pytest.mark.server
def test_int8_is_built_certified_and_served(
    routed_project: tuple[Path, list[str]], tmp_path: Path, command_line: CommandLine
) -> None:
    root = tmp_path / "project"
    shutil.copytree(routed_project[0], root)
    file = root / "export" / "small.toml"
    text = file.read_text().replace('"torchscript"', "").replace('["fp32"]', '["fp32", "int8"]')
    file.write_text(text.replace("[serving]", '[serving]\nprecision = "int8"'))
    build(root)
    ended = command_line("certify", "small", "--precision", "int8", "--json", folder=root)
    assert ended.code == 0, ended.err
    assert {one["precision"] for one in json.loads(ended.out)["certified"]} == {"int8"}
    file.write_text(text)
    build(root)
    with serving(root, "small", "--precision", "int8") as server:
        assert server.ask("small", {"inputs": [[0.5, -0.2]]})[0] == 200
        assert 'precision="int8"' in server.get("/metrics")


@pytest.mark.parametrize("command", ["serve", "certify"])
@pytest.mark.parametrize("setting", ["backend", "precision", "provider"])
def test_every_choice_that_the_help_offers_is_a_setting(command: str, setting: str) -> None:
    (option,) = (
        one
        for one in get_command(app).commands[command].params  # type: ignore[attr-defined]
        if one.name == setting
    )
    choices = option.type.choices
    assert choices
    for choice in choices:
        assert getattr(ServingConfig(**{setting: choice}), setting) == choice
    if setting == "precision":
        assert set(choices) == {"auto", *get_args(Precision)}
