"""What is raced: one plain ONNX file a model, real rows, and the labels every server must give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import skipserve
from skipserve.artifacts.formats import write_model
from skipserve.buildfile import read_build_file
from skipserve.runtime.backends import open_backend
from skipserve.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / ".build" / "peers"
NAMES = ("moons_residual", "mnist1d_resnet")
ROWS = 256


@dataclass(frozen=True)
class RacedModel:
    """One model of the race.

    Attributes:
        name: Of the model, as in export/NAME.toml.
        archive: What skipserve serves.
        plain: The ONNX file without a router that every peer serves.
        routed: Whether skipserve's file holds a router.
        rows: Test rows, one a request.
        labels: At full depth, of each row.
    """

    name: str
    archive: Path
    plain: Path
    routed: bool
    rows: list[list[float]]
    labels: list[int]


def prepare(name: str) -> RacedModel:
    """Export the plain graph and check that it answers as the artifact does at full depth.

    Raises:
        SystemExit: If the model is not built.
        RuntimeError: If the two files disagree on a label.
    """
    build = read_build_file(ROOT / "export" / f"{name}.toml")
    if not build.archive.is_file():
        raise SystemExit(f"{build.archive} is missing; run: skipserve build {build.path}")
    WORK.mkdir(parents=True, exist_ok=True)
    plain = WORK / f"{name}.onnx"
    write_model(load_checkpoint(build.checkpoint).network, "onnx", "fp32", plain)
    rows = build.recipe.draw("test").inputs[:ROWS].numpy().round(4)
    feeds = {"inputs": rows.astype(np.float32)}
    labels = open_backend(plain, ("probabilities",)).run(feeds)["probabilities"].argmax(axis=1)
    engine = skipserve.open(build.artifact)
    differ = int((engine.predict(rows).labels != labels).sum())
    if differ:
        raise RuntimeError(f"{plain} and {build.artifact} disagree on {differ} of {ROWS} rows")
    return RacedModel(
        name,
        build.archive,
        plain,
        engine.manifest.router is not None,
        rows.tolist(),
        labels.tolist(),
    )
