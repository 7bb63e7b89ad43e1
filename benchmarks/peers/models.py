"""What is raced: one plain ONNX file a model, real rows, and the labels every server must give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.runtime.backends import open_onnx

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
        routed: Whether skipserve has a router for it.
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
    """Put the plain graph and its weights into one file, and check that it answers alike.

    Raises:
        SystemExit: If the model is not built.
        RuntimeError: If the two files disagree on a label.
    """
    build = read_build_file(ROOT / "export" / f"{name}.toml")
    if not build.archive.is_file():
        raise SystemExit(f"{build.archive} is missing; run: skipserve build {build.path}")
    WORK.mkdir(parents=True, exist_ok=True)
    plain = WORK / f"{name}.onnx"
    (file,) = open_artifact(build.artifact).files("onnx", "fp32", "plain")
    onnx.save(onnx.load(file), plain)
    rows = build.trained.recipe.draw("test").inputs[:ROWS].numpy().round(4)
    (probabilities,) = open_onnx(plain)[0].run({"inputs": rows.astype(np.float32)})
    labels = probabilities.argmax(axis=1)
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
