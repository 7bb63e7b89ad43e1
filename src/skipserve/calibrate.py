"""Calibrating an artifact: propose thresholds eagerly, certify them on the exported files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from skipserve.errors import ArtifactError, ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.routing.certify import (
    Goal,
    Outcome,
    certify,
    outcome_of,
    samples_needed,
)
from skipserve.routing.propose import Thresholds, propose
from skipserve.routing.routed import Router
from skipserve.runtime.engine import BackendName, Engine
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import check_labels

if TYPE_CHECKING:
    from skipserve.training.recipes import Samples

Say = Callable[[str], None]
# It holds back half a percent of what is like calibration; so many are another task.
MOST_HELD_BACK = 0.5
# Tenths of fewer rows are too rough: of m rows they alone make a stability index of about 9 / m.
ROWS_FOR_DECILES = 200


def propose_candidates(
    directory: Path, network: ResidualNetwork, router: Router, samples: Samples
) -> None:
    """Write the candidates of an artifact, forgetting certificates of earlier ones.

    Args:
        directory: The artifact, exported with ``router``.
        network: What it was exported from.
        router: As it was fitted for the export.
        samples: Used by nothing that certifies.
    """
    limit = _guard_limit(open_artifact(directory))
    proposed = propose(network, router, samples.inputs, limit)
    candidates = tuple(tuple(map(to_json, one.tolist())) for one in proposed)
    write_certificates(directory, Certificates(candidates=candidates))


def certify_artifact(
    directory: Path,
    samples: NDArray[Any],
    risks: Sequence[float] | None = None,
    confidence: float | None = None,
    *,
    labels: NDArray[Any] | None = None,
    backend: BackendName = "onnxruntime",
    precision: Literal["auto", "fp32", "fp16"] = "auto",
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
        samples: Rows [N, *inputs] that neither training nor proposing has touched.
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
    verdicts, outcomes = certify(trial.run, candidates, len(samples), goals, confidence)
    certificates, refusals = [], []
    for verdict in verdicts:
        about = {
            "risk": verdict.goal.risk,
            "measure": verdict.goal.measure,
            "file_sha256": engine.file_sha256,
            "provider": engine.provider,
        }
        if verdict.candidate is None:
            reason = _why_refused(verdict.goal, len(samples), outcomes[0], confidence)
            refusals.append(Refusal.model_validate({**about, "reason": reason}))
            continue
        outcome = outcomes[verdict.candidate]
        tested = {
            "confidence": confidence,
            "samples": len(samples),
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
        rows: NDArray[np.float32],
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
        )
        if outcome.held_back > MOST_HELD_BACK:
            raise ConfigError(
                f"the guard holds back {outcome.held_back:.0%} of the samples: they are not like "
                f"the {self._engine.manifest.recipe} rows the router was fitted on; certify on "
                "rows of the task, or build a model on these"
            )
        assert answers.trail is not None
        self.deciles.append(_deciles(answers.trail.signals()))
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
