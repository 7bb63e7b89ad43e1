"""Candidates: thresholds proposed from what the served files read off rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.asked import BackendName
from skipserve.artifacts.certificates import Certificates, from_json, to_json
from skipserve.artifacts.certificates_file import write_certificates
from skipserve.files import held
from skipserve.routing.propose import (
    Observations,
    Stops,
    Thresholds,
    propose,
    propose_for_units,
    propose_skips,
)
from skipserve.routing.reading import observe
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.tasks import Units

BATCH = 32
# More rows would hardly move a threshold.
MOST_ROWS = 10_000
# Fewer queries would not tell a rate of 1 % from none.
FEWEST_QUERIES = 500
# Under ``skip`` every row is run again for every stage.
MOST_ROWS_SKIPPING = 5_000


def propose_candidates(
    directory: Path,
    proposing: Rows,
    cores: int = 0,
    queries: NDArray[np.uint64] | None = None,
) -> None:
    """Write the candidates of an artifact, forgetting certificates of earlier ones.

    They are proposed on what the files that serve read off the rows.

    Args:
        directory: The artifact.
        proposing: Rows that are used by nothing that certifies.
        cores: To use; 0 takes all.
        queries: The query of each row [N]; needed where the task counts queries.

    Raises:
        ConfigError: If the task counts queries and there are none.
    """
    artifact = open_artifact(directory)
    engine = Engine.for_many(artifact, provider="cpu", backend=_backend(artifact), cores=cores)
    spec = artifact.manifest.router
    assert spec is not None
    if spec.policy == "skip":
        proposed = propose_skips(*_read_skips(engine, proposing[:MOST_ROWS_SKIPPING]))
    elif engine.manifest.task.top is not None:
        proposed = _of_queries(engine, proposing, queries)
    else:
        proposed = propose(_observed(engine, proposing[:MOST_ROWS]), spec.risks)
    candidates = tuple(tuple(map(to_json, one.tolist())) for one in proposed)
    with held(directory):
        write_certificates(directory, Certificates(candidates=candidates))


def _backend(artifact: Artifact) -> BackendName:
    return "onnxruntime" if artifact.manifest.files[0].format == "onnx" else "torchscript"


def _of_queries(engine: Engine, rows: Rows, queries: NDArray[np.uint64] | None) -> list[Thresholds]:
    """Candidates by the disagreement of whole queries, all that a certificate would count.

    A row may leave where that alone does not change which documents come first.
    """
    task = engine.manifest.task
    some = Units(task, len(rows), queries).some(MOST_ROWS, FEWEST_QUERIES)
    rows, queries = rows[some], None if queries is None else queries[some]
    units = Units(task, len(rows), queries)
    readings, spec = engine.read(rows), engine.manifest.router
    assert spec is not None
    full = readings.answers[:, -1]
    alone = units.agree_alone_by_depth(readings.answers)
    observed = replace(_of_readings(engine, readings), agrees=alone[:, :-1])

    def judge(where: Stops) -> float:
        served = readings.answers[np.arange(len(where)), where]
        return float(units.differ(served, full).mean())

    return propose_for_units(observed, spec.risks, judge)


def _observed(engine: Engine, rows: Rows) -> Observations:
    """What the router observes of rows that run everything."""
    if engine.backend == "torchscript":
        return _observed_by_running(engine, rows)
    return _of_readings(engine, engine.read(rows))


def _of_readings(engine: Engine, readings: ExitReadings) -> Observations:
    spec = engine.manifest.router
    assert spec is not None
    return observe(
        readings,
        engine.manifest.task,
        [*spec.decisions, engine.manifest.depth],
        from_json(spec.guard_limit),
        [one.leaves for one in spec.exits],
    )


def _observed_by_running(engine: Engine, rows: Rows) -> Observations:
    """The same for files whose exits cannot be read: every row stops at each exit in turn."""
    spec, task = engine.manifest.router, engine.manifest.task
    assert spec is not None
    full, signals = _full_and_signals(engine, rows)
    blocks = np.array([*spec.decisions, engine.manifest.depth])
    agrees, inside = [], []
    for decision, at in enumerate(spec.decisions):
        here = engine.off.thresholds.copy()
        here[decision] = -np.inf
        answers = engine.run_batches(rows, Setting(here, from_json(spec.guard_limit)), BATCH)
        inside.append(answers.depth_run == at)
        agrees.append(task.agree(answers.answers, full.answers))
    return Observations(blocks, signals, np.stack(agrees, axis=1), np.stack(inside, axis=1))


def _full_and_signals(engine: Engine, rows: Rows) -> tuple[Prediction, NDArray[np.float32]]:
    """Full-depth answers, and the signal at each decision of rows that run everything."""
    full = engine.run_batches(rows, engine.off, BATCH)
    careful = np.full_like(engine.off.thresholds, np.finfo(np.float32).max)
    signals = engine.run_batches(rows, Setting(careful, np.inf), BATCH).signals
    assert signals is not None
    return full, signals


def _read_skips(engine: Engine, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The signal before each stage, and whether the answer agrees if only it is left out."""
    full, signals = _full_and_signals(engine, rows)
    agrees = []
    for stage in range(signals.shape[1]):
        without = np.full_like(engine.off.thresholds, np.finfo(np.float32).max)
        without[stage] = -np.inf
        answers = engine.run_batches(rows, Setting(without, np.inf), BATCH)
        agrees.append(engine.manifest.task.agree(answers.answers, full.answers))
    return signals, np.stack(agrees, axis=1)
