"""A project of one small model that nothing has built."""

from __future__ import annotations

import shutil
from pathlib import Path

from running import ROOT

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


def unbuilt(root: Path) -> Path:
    """Write the project into a folder."""
    (root / "export").mkdir()
    shutil.copytree(ROOT / "handlers", root / "handlers")
    (root / "export" / "small.toml").write_text(SMALL)
    return root


def change(root: Path, old: str, new: str) -> None:
    """Change its build file."""
    file = root / "export" / "small.toml"
    file.write_text(file.read_text().replace(old, new))
