"""A project whose small model has a router, and the names and tolerances tests share."""

from __future__ import annotations

from pathlib import Path

from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps

# One probability computed in batches of different sizes: the sums may be reordered.
REORDERED = 1e-6
ROUTED = """
name = "small"
recipe = "two_moons"
[network]
depth = 4
width = 16
[training]
epochs = 3
[export]
formats = ["onnx", "torchscript"]
precisions = ["fp32"]
[exits]
at = [1, 2, 3]
first = 1
hidden = 0
corrupted = false
[router]
signal = "confidence"
risks = [0.02, 0.05]
[serving]
risk = 0.05
# Which rows run at full depth for evidence is chance.
evidence = 0
"""


def build(root: Path, name: str = "small") -> list[str]:
    """Build a model of a project; the steps that took."""
    said: list[str] = []
    run_steps(read_build_file(root / "export" / f"{name}.toml"), lambda epoch: None, said.append)
    return [line.split()[1] for line in said if line.endswith("…")]


MODELS = ("moons_plain", "moons_residual", "moons_gated")
