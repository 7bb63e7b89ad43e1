"""INT8 files are certified and served where they are asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
from command_line import CommandLine
from running import serving

from skipserve.artifacts.asked import AskedPrecision, Precision
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig


@pytest.mark.server
def test_files_in_int8_are_certified_and_served(
    routed_project: tuple[Path, list[str]], tmp_path: Path, command_line: CommandLine
) -> None:
    """The files are those of FP32 under another name: which are taken is the question here."""
    root = tmp_path / "project"
    shutil.copytree(routed_project[0], root)
    file = root / "artifacts" / "small" / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["files"] += [
        {**one, "precision": "int8"} for one in manifest["files"] if one["format"] == "onnx"
    ]
    file.write_text(json.dumps(manifest))
    ended = command_line("certify", "small", "--precision", "int8", "--json", folder=root)
    assert ended.code == 0, ended.err
    assert "int8" in {one["precision"] for one in json.loads(ended.out)["certified"]}
    assert command_line("package", "export/small.toml").code == 0
    with serving(root, "small", "--precision", "int8") as server:
        _, _, reply = server.ask("small", {"inputs": [[0.5, -0.2]]})
        assert reply["router"] == "on"  # by what was certified for these files
        assert 'precision="int8"' in server.get("/metrics")


def test_every_precision_of_files_can_be_asked_for() -> None:
    assert set(get_args(AskedPrecision)) == {"auto", *get_args(Precision)}
    for precision in get_args(AskedPrecision):
        assert ServingConfig(precision=precision).precision == precision
