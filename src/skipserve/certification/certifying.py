"""Certifying the candidates of an artifact on the files that serve."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.asked import AskedPrecision, AskedProvider, BackendName
from skipserve.artifacts.certificates import (
    Certificate,
    Certificates,
    Measure,
    Refusal,
    TestedCandidate,
    from_json,
    thresholds_of,
    to_json,
)
from skipserve.artifacts.certificates_file import add_certificates
from skipserve.certification.certify import (
    Goal,
    Outcome,
    Verdict,
    certify,
    fewest_samples,
    p_value_of,
)
from skipserve.certification.trial import Say, Trial, sha256_of
from skipserve.errors import ArtifactError
from skipserve.intervals import p_value, spelled
from skipserve.routing.propose import Thresholds
from skipserve.runtime.engine import Engine
from skipserve.tasks import Units, counted, too_short_note


def certify_artifact(
    directory: Path,
    samples: object,
    risks: Sequence[float] | None = None,
    confidence: float | None = None,
    *,
    labels: NDArray[Any] | None = None,
    queries: NDArray[np.uint64] | None = None,
    backend: BackendName = "onnxruntime",
    precision: AskedPrecision = "auto",
    provider: AskedProvider = "auto",
    cores: int = 1,
    batch_size: int = 64,
    say: Say = lambda line: None,
    on_progress: Callable[[str, float | None], None] = lambda doing, share: None,
) -> Certificates:
    """Certify one file of an artifact on the provider that will serve it, and keep the outcome.

    The file is a black box here: it is run with everything and with each candidate, in batches,
    and the answers are counted. Where every exit can be read, they are read once, which tells what
    each candidate would do; those that are certified are then run as requests are. If one does
    something else than was read, all are run.

    Args:
        directory: The artifact; its candidates are tested in the order they stand in.
        samples: Rows of the model, N of them, that neither training nor proposing has touched.
        risks: The ε of each measure; by default those of the model.
        confidence: 1 − δ; by default the one that the model asks for. What is certified with less
            is written down, but not served.
        labels: True classes [N]; accuracy lost is certified too if they are given.
        queries: The query of each sample [N]; needed where the task counts queries.
        backend: Opens the file.
        precision: Of the file; ``auto`` as in serving.
        provider: Runs it; ``auto`` as in serving.
        cores: To use; 0 takes all.
        batch_size: Rows that run together.
        say: Receives progress, line by line.
        on_progress: Receives which candidate is tested, and the share of candidates before it.

    Raises:
        ArtifactError: If the artifact has no router or no candidates, or others by the end.
        ConfigError: If a risk or the confidence is not between 0 and 1, or the labels are not
            classes of as many rows; if the task counts queries and there are none.
        InputError: If the samples are not rows of this model.
    """
    artifact = open_artifact(directory)
    spec = artifact.manifest.router
    if spec is None:
        raise ArtifactError(
            f"{directory} has no router: there is nothing to certify; "
            "add [router] to its TOML and build again"
        )
    risks = list(dict.fromkeys(risks or spec.risks))
    wanted = spec.offline_confidence
    confidence = wanted if confidence is None else confidence
    if confidence < wanted:
        say(
            f"note: {artifact.manifest.name} asks for certificates of {spelled(wanted)};"
            f" those made now, of {spelled(confidence)}, will not be served"
        )
    made = artifact.certificates
    if not made.candidates:
        raise ArtifactError(f"{directory} has no candidates; run `skipserve calibrate` first")
    engine = Engine.for_many(
        artifact, backend=backend, precision=precision, provider=provider, cores=cores
    )
    rows, truth = engine.check(samples), None
    task, name = artifact.manifest.task, artifact.manifest.name
    if labels is not None:
        truth = task.truth(labels, len(rows), name)
    units = Units(task, len(rows), queries)
    on_progress(f"{name}: running {len(rows)} rows at full depth", None)
    limit = _guard_limit(artifact)
    trial = Trial(engine, rows, truth, units, limit, batch_size, say)
    those = f"{units.count} {counted(task)}{too_short_note(units.too_short)}"
    if units.too_short:
        say(f"note: {those}")
    measures: tuple[Measure, ...] = ("disagreement",)
    if labels is not None:
        measures = ("disagreement", "accuracy_lost")
    goals = [Goal(risk, measure) for measure in measures for risk in risks]
    candidates = [thresholds_of(one) for one in made.candidates]
    if trial.foresees:
        on_progress(f"{name}: reading every exit of {len(rows)} rows", None)
        trial.read()

    def reporting(run: Callable[[Thresholds], Outcome]) -> Callable[[Thresholds], Outcome]:
        """The same, which says which candidate it is at."""
        places = itertools.count()

        def tested(thresholds: Thresholds) -> Outcome:
            at = next(places)
            doing = f"{name}: testing candidate {at + 1} of {len(candidates)}"
            on_progress(doing, at / len(candidates))
            return run(thresholds)

        return tested

    verdicts, outcomes = _certified(trial, reporting, candidates, goals, confidence)
    certificates, refusals, digest = [], [], sha256_of(rows, units)
    for verdict in verdicts:
        about = {
            "risk": verdict.goal.risk,
            "measure": verdict.goal.measure,
            "files": engine.files,
            "provider": engine.provider,
        }
        if verdict.candidate is None:
            reason = _why_refused(verdict.goal, units.count, outcomes[0], confidence, those)
            refusals.append(Refusal.model_validate({**about, "reason": reason}))
            continue
        outcome = outcomes[verdict.candidate]
        found = {
            "confidence": confidence,
            "samples": units.count,
            "too_short": units.too_short,
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
            "tried": tuple(
                TestedCandidate(
                    disagreements=one.disagreements,
                    p_value=p_value_of(one, units.count, verdict.goal, confidence),
                    run_rate=one.run_rate,
                    held_back=one.held_back,
                    by_class=one.by_class,
                )
                for one in outcomes[: verdict.candidate + 1]
            ),
            "samples_sha256": digest,
        }
        certificates.append(Certificate.model_validate({**about, **found}))
    news = Certificates(
        candidates=made.candidates, certificates=tuple(certificates), refusals=tuple(refusals)
    )
    return add_certificates(directory, news, spec)


def _certified(
    trial: Trial,
    reporting: Callable[[Callable[[Thresholds], Outcome]], Callable[[Thresholds], Outcome]],
    candidates: Sequence[Thresholds],
    goals: Sequence[Goal],
    confidence: float,
) -> tuple[list[Verdict], list[Outcome]]:
    if trial.foresees:
        verdicts, outcomes = certify(
            reporting(trial.foresee), candidates, trial.units.count, goals, confidence
        )
        chosen = sorted({one.candidate for one in verdicts if one.candidate is not None})
        if all(trial.run(candidates[place]).same(outcomes[place]) for place in chosen):
            return verdicts, outcomes
    trial.deciles.clear()
    return certify(reporting(trial.run), candidates, trial.units.count, goals, confidence)


def _why_refused(goal: Goal, samples: int, first: Outcome, confidence: float, those: str) -> str:
    by_class = first.by_class if goal.measure == "disagreement" else ()
    needed = fewest_samples(goal.risk, confidence, len(by_class))
    rare = [count for _, count in by_class if count < needed]
    if rare:
        return (
            f"every class is certified by itself, and one has {min(rare)} of {those}; it takes at "
            f"least {needed} of each to certify {spelled(goal.risk)} at confidence "
            f"{spelled(confidence)}"
        )
    if samples < needed:
        return (
            f"{those} cannot certify {spelled(goal.risk)} at confidence {spelled(confidence)}; "
            f"it takes at least {needed}"
        )
    did, of = f"disagrees on {first.disagreements}", those
    if by_class:
        wrong, count = max(by_class, key=lambda one: p_value(one[0], one[1], goal.risk))
        did, of = f"disagrees on {wrong}", f"the {count} of one class, of {those}"
    if goal.measure == "accuracy_lost" and first.lost is not None:
        did = f"loses the right answer on {int(first.lost.sum())} more than it gains"
    return (
        f"the most careful candidate {did} of {of}, "
        f"too many for {spelled(goal.risk)} at confidence {spelled(confidence)}"
    )


def _guard_limit(artifact: Artifact) -> float:
    spec = artifact.manifest.router
    return from_json(spec.guard_limit) if spec is not None else float("inf")
