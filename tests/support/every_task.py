"""Networks of every task, brought: most of their blocks do nothing to most rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.torch_files import export_module
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth, measure_worth
from skipserve.routing import heads

RISK, WIDTH, OUT = 0.05, 8, 4
ROWS = 4_000


class Net(nn.Module):
    """A residual network most of whose blocks do nothing to most rows, and much to the others."""

    def __init__(self, out: int, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.stem = nn.Parameter(torch.randn(WIDTH, 32, generator=random) / WIDTH**0.5)
        self.gates = nn.Parameter(torch.randn(4, 32, 1, generator=random) / 32**0.5)
        self.moves = nn.Parameter(torch.randn(4, 1, 32, generator=random))
        self.head, self.last = nn.Parameter(torch.randn(32, out, generator=random) / 6), last

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.stem
        for gate, move in zip(self.gates, self.moves, strict=True):
            x = x + torch.relu(x @ gate - 1.5) @ move
        return self.last(x @ self.head)


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=-1)


# What a network gives, and how it is brought.
KINDS: dict[str, tuple[int, Callable[[Tensor], Tensor], float | None]] = {
    "multilabel": (OUT, lambda x: 6 * x, None),
    "regress": (2, lambda x: 100 + 50 * x, 4.0),
    "embed": (8, unit, None),
    "score": (1, lambda x: 10 * x[:, 0], 0.8),
}


@dataclass(frozen=True)
class Made:
    """A model that was brought."""

    kind: str
    worth: Worth | str
    artifact: Artifact
    rows: NDArray[np.float32]
    project: Path


BUILD = """
name = "{kind}"
[source]
onnx = "net.onnx"
[data]
rows = "rows.npz"
[task]
kind = "{kind}"
{tolerance}
[exits]
at = [0, 2, 3]
first = 0
hidden = 0
corrupted = false
[router]
risks = [{risk}]
[serving]
risk = {risk}
# Which rows run at full depth for evidence is chance.
evidence = 0
"""


def export(net: nn.Module, file: Path) -> None:
    onnx.save(export_module(net.eval(), (torch.zeros(2, WIDTH),), ("x",), "out"), file)


def brought(kind: str, folder: Path) -> Made:
    out, last, tolerance = KINDS[kind]
    export(Net(out, last), folder / "net.onnx")
    rows = np.random.default_rng(0).standard_normal((ROWS + 1_000, WIDTH)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows[:ROWS])
    said = "" if tolerance is None else f"tolerance = {tolerance}"
    file = folder / "export" / f"{kind}.toml"
    file.parent.mkdir()
    file.write_text(BUILD.format(kind=kind, tolerance=said, risk=RISK))
    build = read_build_file(file)
    sourced = Sourced(build)
    with pytest.MonkeyPatch.context() as quicker:
        if kind != "multilabel":
            # Heads that learn numbers get many steps, and so do those that estimate agreement: a
            # quarter of them is enough here, and they are most of a build.
            quicker.setattr(heads, "FEWEST_STEPS", heads.FEWEST_STEPS // 4)
        run_steps(build, lambda epoch: None, lambda line: None, sourced=sourced)
    worth = measure_worth(build.artifact, sourced.rows, RISK)
    return Made(kind, worth, open_artifact(build.artifact), rows[ROWS:], folder)
