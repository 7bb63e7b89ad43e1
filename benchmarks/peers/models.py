"""What is raced: one plain ONNX file a model, real rows, and the labels every server must give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import skipserve
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.preprocessing.config import TextInput
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
        rows: Test rows, one a request: numbers or a text.
        labels: At full depth, of each row.
        risk: ε that skipserve serves it at.
        names: Of its classes, if they have some.
        tokenizer: Of texts, as every peer opens it; it truncates and pads itself.
    """

    name: str
    archive: Path
    plain: Path
    routed: bool
    rows: list[Any]
    labels: list[int]
    risk: float
    names: tuple[str, ...] = ()
    tokenizer: Path | None = None

    @property
    def may_differ(self) -> int:
        """Labels that the router may change: ε of the rows, and four standard deviations."""
        mean = self.risk * len(self.rows)
        return math.floor(mean + 4 * math.sqrt(mean * (1 - self.risk)))


def prepare(name: str) -> RacedModel:
    """Put the plain graph and its weights into one file, and check that it answers alike.

    Raises:
        SystemExit: If the model is not built.
        RuntimeError: If the two files disagree on a label.
    """
    build = read_build_file(ROOT / "export" / f"{name}.toml")
    if not build.archive.is_file():
        raise SystemExit(f"{build.archive} is missing; run: skipserve build {build.path}")
    plain = one_file(open_artifact(build.artifact), WORK / f"{name}.onnx")
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
        build.serving.risk,
    )


def prepare_texts(build: BuildFile, texts: list[str]) -> RacedModel:
    """The same of a model of texts that was brought; peers get its tokenizer too.

    Args:
        build: Its build file; it is built.
        texts: One a request.

    Raises:
        RuntimeError: If the plain graph behind the tokenizer alone, which is what peers serve,
            gives other labels than skipserve at full depth.
    """
    from tokenizers import Tokenizer

    artifact = open_artifact(build.artifact)
    config, task = artifact.manifest.preprocessing, artifact.manifest.task
    if not isinstance(config, TextInput):
        raise SystemExit(f"{build.name} takes no texts")
    plain = one_file(artifact, WORK / f"{build.name}.onnx")
    tokenizer = Tokenizer.from_file(str(build.artifact / config.tokenizer.path))
    tokenizer.enable_truncation(config.longest, direction=config.truncation)
    tokenizer.enable_padding(pad_id=config.padding)
    file = WORK / f"{build.name}.tokenizer.json"
    tokenizer.save(str(file))
    engine = skipserve.open(build.artifact)
    labels = [int(engine.predict([text]).labels[0]) for text in texts]
    session = open_onnx(plain)[0]
    for text, label in zip(texts, labels, strict=True):
        encoded = tokenizer.encode(text)
        given = {config.ids: encoded.ids, config.mask: encoded.attention_mask}
        given[config.types] = encoded.type_ids
        feeds = {name: np.array([row]) for name, row in given.items() if name is not None}
        if int(session.run(feeds)[0].argmax()) != label:
            raise RuntimeError(f"{plain} and {build.artifact} disagree on {text[:60]!r}")
    risk = build.serving.risk
    return RacedModel(
        build.name, build.archive, plain, True, texts, labels, risk, tuple(task.names), file
    )


def one_file(artifact: Artifact, into: Path) -> Path:
    """Put the plain graph of an artifact and its weights into one file."""
    into.parent.mkdir(parents=True, exist_ok=True)
    (file,) = artifact.files("onnx", "fp32", "plain")
    onnx.save(onnx.load(file), into)
    return into
