"""Calibrating an artifact: propose thresholds and certify them, on the files that serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.certificates import (
    Certificate,
    Certificates,
    Measure,
    Refusal,
    from_json,
    to_json,
    write_certificates,
)
from skipserve.certification.certify import (
    Goal,
    Outcome,
    certify,
    outcome_of,
    samples_needed,
)
from skipserve.errors import ArtifactError, ConfigError
from skipserve.routing.propose import Seen, Thresholds, propose, propose_skips
from skipserve.routing.stopping import within
from skipserve.runtime.engine import AskedPrecision, Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows, check_labels
from skipserve.runtime.runners import BackendName

Say = Callable[[str], None]
# It holds back half a percent of what is like calibration; so many are another task.
MOST_HELD_BACK = 0.5
BATCH = 256
# More rows would hardly move a threshold.
MOST_ROWS = 10_000
# Under ``skip`` every row is run again for every stage.
MOST_ROWS_SKIPPING = 5_000
# Tenths of fewer rows are too rough: of m rows they alone make a stability index of about 9 / m.
ROWS_FOR_DECILES = 200


def propose_candidates(directory: Path, proposing: Rows, threads: int = 0) -> None:
    """Write the candidates of an artifact, forgetting certificates of earlier ones.

    They are proposed on what the files that serve read off the rows.

    Args:
        directory: The artifact.
        proposing: Rows that are used by nothing that certifies.
        threads: Cores used inside one operation; 0 takes all.
    """
    artifact = open_artifact(directory)
    engine = Engine(artifact, provider="cpu", backend=_backend(artifact), threads=threads)
    spec = artifact.manifest.router
    assert spec is not None
    if spec.policy == "skip":
        proposed = propose_skips(*_read_skips(engine, proposing[:MOST_ROWS_SKIPPING]))
    else:
        proposed = propose(_seen(engine, proposing[:MOST_ROWS]))
    candidates = tuple(tuple(map(to_json, one.tolist())) for one in proposed)
    write_certificates(directory, Certificates(candidates=candidates))


def _backend(artifact: Artifact) -> BackendName:
    return "onnxruntime" if artifact.manifest.files[0].format == "onnx" else "torchscript"


def _seen(engine: Engine, rows: Rows) -> Seen:
    """What the router would see of rows, if all got to the end."""
    spec, task = engine.manifest.router, engine.manifest.task
    assert spec is not None
    if engine.backend == "torchscript":
        return _seen_by_running(engine, rows)
    readings = engine.read(rows)
    full = readings.answers[:, -1]
    early = np.moveaxis(readings.answers[:, :-1], 1, 0)
    agrees = np.stack([task.agree(answers, full) for answers in early], axis=1)
    limit = from_json(spec.guard_limit)
    inside = np.logical_and.accumulate(within(readings.distances, limit), axis=1)
    inside = inside[:, [one.leaves for one in spec.exits]]
    return Seen(
        np.array([*spec.decisions, engine.manifest.depth]), readings.signals, agrees, inside
    )


def _seen_by_running(engine: Engine, rows: Rows) -> Seen:
    """The same of files whose exits cannot be read: all rows are sent out at each in turn."""
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
        agrees.append(task.agree(answers.probabilities, full.probabilities))
    return Seen(blocks, signals, np.stack(agrees, axis=1), np.stack(inside, axis=1))


def _full_and_signals(engine: Engine, rows: Rows) -> tuple[Prediction, NDArray[np.float32]]:
    """Answers at full depth, and the signal at each decision of rows that run everything."""
    full = engine.run_batches(rows, engine.off, BATCH)
    careful = np.full_like(engine.off.thresholds, np.finfo(np.float32).max)
    signals = engine.run_batches(rows, Setting(careful, np.inf), BATCH).signals
    assert signals is not None
    return full, signals


def _read_skips(engine: Engine, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The signal before each stage, and whether the answer stays if it alone is left out."""
    full, signals = _full_and_signals(engine, rows)
    agrees = []
    for stage in range(signals.shape[1]):
        without = np.full_like(engine.off.thresholds, np.finfo(np.float32).max)
        without[stage] = -np.inf
        answers = engine.run_batches(rows, Setting(without, np.inf), BATCH)
        agrees.append(engine.manifest.task.agree(answers.probabilities, full.probabilities))
    return signals, np.stack(agrees, axis=1)


def certify_artifact(
    directory: Path,
    samples: object,
    risks: Sequence[float] | None = None,
    confidence: float | None = None,
    *,
    labels: NDArray[Any] | None = None,
    backend: BackendName = "onnxruntime",
    precision: AskedPrecision = "auto",
    provider: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    batch_size: int = 64,
    say: Say = lambda line: None,
) -> Certificates:
    """Certify one file of an artifact on the provider that will serve it, and keep the outcome.

    The file is a black box here: it is run with each candidate and with everything, in batches,
    and the answers are counted.

    Args:
        directory: The artifact; its candidates are tested in the order they stand in.
        samples: Rows of the model, N of them, that neither training nor proposing has touched.
        risks: The ε of each measure; by default those of the model.
        confidence: 1 − δ; by default the one that the model asks for. What is certified with less
            is written down, but not served.
        labels: True classes [N]; accuracy lost is certified too if they are given.
        backend: Opens the file.
        precision: Of the file; ``auto`` as in serving.
        provider: Runs it; ``auto`` as in serving.
        threads: Cores used inside one operation.
        batch_size: Rows that run together.
        say: Told about progress.

    Raises:
        ArtifactError: If the artifact has no router or no candidates.
        ConfigError: If a risk or the confidence is not between 0 and 1, or the labels are not
            classes of as many rows.
        InputError: If the samples are not rows of this model.
    """
    artifact = open_artifact(directory)
    spec = artifact.manifest.router
    if spec is None:
        raise ArtifactError(
            f"{directory} has no router: there is nothing to certify; "
            "add [router] to its TOML and build again"
        )
    risks = risks or spec.risks
    confidence = spec.confidence if confidence is None else confidence
    if confidence < spec.confidence:
        say(
            f"note: {artifact.manifest.name} asks for certificates of {spec.confidence:g};"
            f" those made now, of {confidence:g}, will not be served"
        )
    made = artifact.certificates
    if not made.candidates:
        raise ArtifactError(f"{directory} has no candidates; run `skipserve calibrate` first")
    engine = Engine(
        artifact,
        backend=backend,
        precision=precision,
        provider=provider,
        threads=threads,
    )
    rows, truth = engine.check(samples), None
    if labels is not None:
        manifest = artifact.manifest
        truth = check_labels(labels, len(rows), manifest.classes, manifest.name)
    limit = _guard_limit(artifact)
    trial = _Trial(engine, rows, truth, limit, batch_size, say)
    measures: tuple[Measure, ...] = ("disagreement",)
    if labels is not None:
        measures = ("disagreement", "accuracy_lost")
    goals = [Goal(risk, measure) for measure in measures for risk in risks]
    candidates = [np.array([from_json(t) for t in one], np.float32) for one in made.candidates]
    verdicts, outcomes = certify(trial.run, candidates, len(rows), goals, confidence)
    certificates, refusals = [], []
    for verdict in verdicts:
        about = {
            "risk": verdict.goal.risk,
            "measure": verdict.goal.measure,
            "files": engine.files,
            "provider": engine.provider,
        }
        if verdict.candidate is None:
            reason = _why_refused(verdict.goal, len(rows), outcomes[0], confidence)
            refusals.append(Refusal.model_validate({**about, "reason": reason}))
            continue
        outcome = outcomes[verdict.candidate]
        tested = {
            "confidence": confidence,
            "samples": len(rows),
            "disagreements": outcome.disagreements,
            "accuracy_lost": None if outcome.lost is None else float(outcome.lost.mean()),
            "p_value": verdict.p_value,
            "run_rate": outcome.run_rate,
            "held_back": outcome.held_back,
            "thresholds": made.candidates[verdict.candidate],
            "guard_limit": to_json(limit),
            "candidate": verdict.candidate,
            "precision": engine.precision,
            "batch_size": batch_size,
            "deciles": trial.deciles[verdict.candidate],
        }
        certificates.append(Certificate.model_validate({**about, **tested}))
    made = made.replacing(certificates, refusals, to_json(limit), spec.confidence)
    write_certificates(directory, made)
    return made


class _Trial:
    """One file on one set of samples: what each candidate does there."""

    def __init__(
        self,
        engine: Engine,
        rows: Rows,
        truth: NDArray[np.int64] | None,
        limit: float,
        batch_size: int,
        say: Say,
    ) -> None:
        self._engine = engine
        self._rows = rows
        self._truth = truth
        self._limit = limit
        self._batch_size = batch_size
        self._say = say
        spec = engine.manifest.router
        self._per_class = spec is not None and spec.per_class
        self.deciles: list[tuple[tuple[float, ...] | None, ...]] = []
        self._full = engine.run_batches(rows, engine.off, batch_size).labels

    def run(self, thresholds: Thresholds) -> Outcome:
        setting = Setting(thresholds, self._limit)
        answers = self._engine.run_batches(self._rows, setting, self._batch_size)
        outcome = outcome_of(
            answers.labels,
            self._full,
            answers.depth_run,
            answers.held_back,
            self._engine.manifest.depth,
            self._truth,
            self._engine.manifest.classes if self._per_class else 0,
        )
        if outcome.held_back > MOST_HELD_BACK:
            raise ConfigError(
                f"the guard holds back {outcome.held_back:.0%} of the samples: they are not like "
                "the rows its router was fitted on; certify on "
                "rows of the task, or build a model on these"
            )
        assert answers.signals is not None
        self.deciles.append(_deciles(answers.signals))
        self._say(
            f"{outcome.disagreements} of {len(self._rows)} disagree at "
            f"{outcome.run_rate:.1%} run rate"
        )
        return outcome


def _deciles(signals: NDArray[np.float32]) -> tuple[tuple[float, ...] | None, ...]:
    """Of each column of signals [N, decisions], NaN where a row did not get there."""
    columns = [column[~np.isnan(column)] for column in signals.T]
    return tuple(
        tuple(np.quantile(column, np.arange(1, 10) / 10).tolist())
        if len(column) >= ROWS_FOR_DECILES
        else None
        for column in columns
    )


def _why_refused(goal: Goal, samples: int, first: Outcome, confidence: float) -> str:
    needed = samples_needed(goal.risk, confidence)
    if samples < needed:
        return (
            f"{samples} samples cannot certify {goal.risk:g} at confidence {confidence:g}; "
            f"it takes at least {needed}"
        )
    rare = [count for _, count in first.by_class if count < needed]
    if goal.measure == "disagreement" and rare:
        return (
            f"every class is certified by itself, and one has {min(rare)} of {samples} samples; "
            f"it takes more than {needed} of each to certify {goal.risk:g}"
        )
    did = f"disagrees on {first.disagreements}"
    if goal.measure == "accuracy_lost" and first.lost is not None:
        did = f"loses the right answer on {int(first.lost.sum())} more than it gains"
    return (
        f"the most careful candidate {did} of {samples} samples, "
        f"too many for {goal.risk:g} at confidence {confidence:g}"
    )


def _guard_limit(artifact: Artifact) -> float:
    spec = artifact.manifest.router
    return from_json(spec.guard_limit) if spec is not None else float("inf")
