"""Offline scoring: answers for a file of rows, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ConfigError
from skipserve.intervals import spelled
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, joined
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match
from skipserve.sources.values import values_of
from skipserve.tasks import Task

# Batches between two reports of progress.
BATCHES = 8


@dataclass(frozen=True)
class Scored:
    """Answers for a file of rows.

    Attributes:
        prediction: For its rows, in order.
        task: What they are.
        risk: The certified ε they were routed at; ``None`` for full depth.
        summary: What was run, in words.
    """

    prediction: Prediction
    task: Task
    risk: float | None
    summary: str


def score(
    artifact: Artifact,
    file: Path,
    risk: float | None,
    batch_size: int,
    cores: int,
    on_progress: Callable[[str, float | None], None],
    text: tuple[str, ...] = (),
) -> Scored:
    """Answer every row of a file.

    Args:
        artifact: The model.
        file: Of rows; columns are matched to its inputs by name.
        risk: ε of the router; full depth for ``None``.
        batch_size: Rows that run together.
        cores: To use; 0 takes all.
        on_progress: Receives the finished share.
        text: Columns of texts; by default those that the model was built with, or the only one.

    Raises:
        ConfigError: If the rows do not fit the model, or the risk is not certified.
    """
    manifest = artifact.manifest
    values = values_of(artifact, text)
    columns = read_columns(file)
    rows = match(columns, manifest.signature, {}, None, str(file), values, manifest.query).rows
    engine = Engine.for_many(artifact, cores=cores)
    setting = engine.setting(risk)
    if risk is not None and setting.reason:
        raise ConfigError(f"{manifest.name} cannot be routed at {spelled(risk)}: {setting.reason}")
    parts = []
    together = BATCHES * batch_size
    for start in range(0, len(rows), together):
        on_progress(f"{manifest.name}: answering", start / len(rows))
        parts.append(engine.run_batches(rows[start : start + together], setting, batch_size))
    answers = joined(parts)
    unknown = int((~answers.finite).sum())
    ran = f"{answers.depth_run.mean() / manifest.depth:.1%} of the blocks ran"
    if setting.risk is not None:
        ran += f" at a certified risk of {spelled(setting.risk)}"
    if unknown:
        ran += f"; {unknown} rows overflow inside the network and have no answer (NaN)"
    return Scored(answers, manifest.task, setting.risk, ran)
