"""Recounting an offline certificate: its files run on its samples again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS
from skipserve.artifacts.certificates import (
    TestedCandidate,
    WrittenThresholds,
    from_json,
    thresholds_of,
)
from skipserve.certification.certificate_file import CertificateFile, Offline
from skipserve.certification.certify import Outcome, betting_p_value
from skipserve.certification.findings import Fault, Finding
from skipserve.certification.trial import Trial, sha256_of
from skipserve.certification.verification import TOLERANCE
from skipserve.errors import ConfigError
from skipserve.intervals import spelled
from skipserve.runtime.engine import Engine
from skipserve.tasks import Units, counted


class _Outcomes:
    """Outcomes of candidates on the samples, each found once."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._found: dict[tuple[WrittenThresholds, bool], Outcome] = {}

    def ways(self, candidate: WrittenThresholds, chosen: bool) -> Iterator[Outcome]:
        """Outcomes of one candidate, by each way that it may have been found where it was tested.

        A row in another batch may round otherwise, so reading every exit once and running the
        candidate may differ. The certified one was run. Others were read, or run too if reading
        had foreseen something else than was seen.

        Args:
            candidate: Its thresholds.
            chosen: Whether it is the certified one.
        """
        if self._trial.foresees and not chosen:
            yield self._of(candidate, read=True)
        yield self._of(candidate, read=False)

    def _of(self, candidate: WrittenThresholds, read: bool) -> Outcome:
        if (candidate, read) not in self._found:
            find = self._trial.foresee if read else self._trial.run
            self._found[candidate, read] = find(thresholds_of(candidate))
        return self._found[candidate, read]


def check_counts(
    made: CertificateFile,
    artifact: Artifact,
    samples: object,
    labels: NDArray[Any] | None,
    say: Callable[[str], None],
    queries: NDArray[np.uint64] | None = None,
) -> Iterator[Finding]:
    """Differences between the counts of a certificate and a rerun of its files.

    Args:
        made: A certificate in which nothing else is wrong.
        artifact: Of which it is.
        samples: Rows of the model.
        labels: Their classes [N]; with them, accuracy lost is computed too.
        say: Receives progress, line by line.
        queries: The query of each row [N]; needed where the task counts queries.

    Raises:
        ConfigError: If no bound is offline, or the classes do not fit.
        LaunchError: If this machine cannot run the files as the certificate says.
    """
    bounds = [bound for bound in made.bounds if isinstance(bound, Offline)]
    if not bounds:
        raise ConfigError(
            "every bound was earned on traffic: there are no samples to run; leave out --data"
        )
    backend = next(
        name
        for name, kind in FORMATS.items()
        if made.files == artifact.hashes(kind, made.precision)
    )
    engine = Engine.for_many(
        artifact, backend=backend, precision=made.precision, provider=made.provider
    )
    rows = engine.check(samples)
    manifest, truth = artifact.manifest, None
    if labels is not None:
        truth = manifest.task.truth(labels, len(rows), manifest.name)
    units = Units(manifest.task, len(rows), queries)
    count, digest = (units.count, units.too_short), sha256_of(rows, units)
    trials: dict[tuple[float, int], _Outcomes] = {}
    for bound in bounds:
        about = f"{bound.measure.replace('_', ' ')} {spelled(bound.risk)} (offline)"
        if count != (bound.samples, bound.too_short) or digest != (bound.samples_sha256 or digest):
            other = "these are not the rows that it was certified on"
            if units.grouping is not None:
                other += (
                    ", or they are grouped by other queries than there: name the column that says "
                    "which query a row belongs to with --query"
                )
            yield Finding(Fault.COUNTS, f"{about}: {other}")
            continue
        limit = from_json(bound.guard_limit)
        kind = (limit, bound.batch_size)
        if kind not in trials:
            trials[kind] = _Outcomes(
                Trial(engine, rows, truth, units, limit, bound.batch_size, say)
            )
        for place, (candidate, said) in enumerate(
            zip(bound.candidates, bound.tried, strict=True), 1
        ):
            chosen = place == len(bound.candidates)
            unlike: list[str] = []
            for found in trials[kind].ways(candidate, chosen):
                unlike = list(_differences(found, said, bound, counted(manifest.task)))
                if not unlike:
                    break
            for sentence in unlike:
                yield Finding(Fault.COUNTS, f"{about}: candidate {place} {sentence}")


def _differences(
    found: Outcome, said: TestedCandidate, bound: Offline, units: str
) -> Iterator[str]:
    """What an outcome has otherwise than a certificate says."""
    wrong = found.disagreements
    if (wrong, found.by_class) != (said.disagreements, said.by_class):
        yield (
            f"disagrees on {wrong} {units} here, the certificate says {said.disagreements}; "
            "another processor may round otherwise"
        )
    elif not np.allclose(
        (found.run_rate, found.held_back), (said.run_rate, said.held_back), atol=TOLERANCE
    ):
        yield (
            f"runs {found.run_rate:.3%} of the blocks and holds back {found.held_back:.3%} of the "
            f"rows here, the certificate says {said.run_rate:.3%} and {said.held_back:.3%}"
        )
    if bound.measure == "accuracy_lost" and found.lost is not None:
        p = betting_p_value(found.lost, bound.risk, bound.confidence)
        if not math.isclose(p, said.p_value, rel_tol=TOLERANCE):
            yield f"has the p-value {p:.6g} here, the certificate says {said.p_value:.6g}"
