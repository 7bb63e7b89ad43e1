"""Calibrating an artifact: propose thresholds eagerly, certify them on the exported files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.certificates import (
    Certificate,
    Certificates,
    Refusal,
    from_json,
    to_json,
    write_certificates,
)
from skipserve.errors import ArtifactError, ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.routing.certify import Outcome, certify, outcome_of, samples_needed
from skipserve.routing.propose import Thresholds, propose
from skipserve.routing.routed import Router
from skipserve.runtime.engine import BackendName, Engine
from skipserve.runtime.prediction import Setting
from skipserve.training.recipes import Samples

Say = Callable[[str], None]
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
    samples: NDArray[np.float32],
    risks: Sequence[float],
    confidence: float,
    *,
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
        risks: Rates of disagreement ε.
        confidence: 1 − δ.
        backend: Opens the file.
        precision: Of the file; ``auto`` as in serving.
        provider: Runs it; ``auto`` as in serving.
        threads: Cores used inside one operation.
        batch_size: Rows that run together.
        say: Told about progress.

    Raises:
        ArtifactError: If the artifact has no router or no candidates.
        ConfigError: If a risk or the confidence is not between 0 and 1.
        InputError: If the samples are not rows of this model.
    """
    artifact = open_artifact(directory)
    if artifact.manifest.router is None:
        raise ArtifactError(
            f"{directory} has no router: there is nothing to certify; "
            "add [router] to its TOML and build again"
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
    rows = engine.check(samples)
    limit = _guard_limit(artifact)
    depth = artifact.manifest.depth
    full = _run(engine, rows, engine.off, batch_size)[0]

    deciles = []

    def run(thresholds: Thresholds) -> Outcome:
        answers = _run(engine, rows, Setting(thresholds, limit), batch_size)
        outcome = outcome_of(answers[0], full, answers[1], answers[2], depth)
        deciles.append(_deciles(answers[3]))
        say(f"{outcome.disagreements} of {len(rows)} disagree at {outcome.run_rate:.1%} run rate")
        return outcome

    candidates = [np.array([from_json(t) for t in one], np.float32) for one in made.candidates]
    verdicts, outcomes = certify(run, candidates, len(rows), risks, confidence)
    certificates, refusals = [], []
    for verdict in verdicts:
        if verdict.candidate is None:
            reason = _why_refused(verdict.risk, len(rows), outcomes[0], confidence)
            refusals.append(
                Refusal(
                    risk=verdict.risk,
                    file_sha256=engine.file_sha256,
                    provider=engine.provider,
                    reason=reason,
                )
            )
            continue
        outcome = outcomes[verdict.candidate]
        certificates.append(
            Certificate(
                risk=verdict.risk,
                confidence=confidence,
                samples=len(rows),
                disagreements=outcome.disagreements,
                p_value=verdict.p_value,
                run_rate=outcome.run_rate,
                held_back=outcome.held_back,
                thresholds=made.candidates[verdict.candidate],
                guard_limit=to_json(limit),
                candidate=verdict.candidate,
                file_sha256=engine.file_sha256,
                precision=engine.precision,
                provider=engine.provider,
                batch_size=batch_size,
                deciles=deciles[verdict.candidate],
            )
        )
    made = made.replacing(certificates, refusals, engine.file_sha256, engine.provider)
    write_certificates(directory, made)
    return made


def _run(
    engine: Engine, rows: NDArray[np.float32], setting: Setting, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.float32]]:
    parts = [
        engine.run_thresholds(
            rows[start : start + batch_size], setting.thresholds, setting.guard_limit
        )
        for start in range(0, len(rows), batch_size)
    ]
    return (
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.depth_run for part in parts]),
        np.concatenate([part.held_back for part in parts]),
        np.concatenate([part.trail.signals() for part in parts if part.trail is not None]),
    )


def _deciles(signals: NDArray[np.float32]) -> tuple[tuple[float, ...] | None, ...]:
    """Of each column of signals [N, decisions], NaN where a row did not get there."""
    columns = [column[~np.isnan(column)] for column in signals.T]
    return tuple(
        tuple(np.quantile(column, np.arange(1, 10) / 10).tolist())
        if len(column) >= ROWS_FOR_DECILES
        else None
        for column in columns
    )


def _why_refused(risk: float, samples: int, first: Outcome, confidence: float) -> str:
    needed = samples_needed(risk, confidence)
    if samples < needed:
        return (
            f"{samples} samples cannot certify {risk:g} at confidence {confidence:g}; "
            f"it takes at least {needed}"
        )
    return (
        f"the most careful candidate disagrees on {first.disagreements} of {samples} samples, "
        f"too many for {risk:g} at confidence {confidence:g}"
    )


def _guard_limit(artifact: Artifact) -> float:
    spec = artifact.manifest.router
    return from_json(spec.guard_limit) if spec is not None else float("inf")


def as_array(samples: Samples) -> NDArray[np.float32]:
    """The rows of a split as an array."""
    rows: NDArray[np.float32] = samples.inputs.to(torch.float32).numpy()
    return rows


def read_rows(file: Path) -> NDArray[np.float32]:
    """Rows [N, *inputs] from a .npy file.

    Raises:
        ConfigError: If it cannot be read as an array of numbers.
    """
    try:
        rows: NDArray[np.float32] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a .npy array: {error}") from None
    return rows
