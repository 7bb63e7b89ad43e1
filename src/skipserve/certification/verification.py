"""Checking a certificate file: every derived number is computed again.

Counts of an offline certificate are computed by :mod:`skipserve.certification.recount`, where its
samples are at hand. Counts of traffic cannot be checked: the signer attests them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS
from skipserve.artifacts.certificates import from_json
from skipserve.certification.certificate_file import (
    CertificateFile,
    Earned,
    Offline,
    Proposal,
    meaning,
    seal,
)
from skipserve.certification.findings import Fault, Finding
from skipserve.earning.ladder import name_of
from skipserve.earning.proofs import unordered
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.intervals import p_value, spelled
from skipserve.slices import Slice, Slices

# Sums of logarithms may differ in the last digits on other machines.
TOLERANCE = 1e-9


def check_certificate(
    made: CertificateFile, values: dict[str, Any], artifact: Artifact
) -> Iterator[Finding]:
    """Faults of a certificate; none if it holds.

    Args:
        made: The certificate.
        values: The JSON values it was read from.
        artifact: Its hashes were checked against its files.
    """
    if seal(values) != made.sha256:
        yield Finding(
            Fault.SEAL,
            "the certificate was changed or damaged after it was written: its sha256 is not that "
            "of its content",
        )
    yield from _check_files(made, artifact)
    for bound in made.bounds:
        about = f"{bound.measure.replace('_', ' ')} {spelled(bound.risk)} ({bound.kind})"
        if isinstance(bound, Earned) and bound.slice:
            about += f" for {bound.slice.value}"
        for finding in _check_bound(bound, artifact):
            yield Finding(finding.fault, f"{about}: {finding.sentence}")


def _check_files(made: CertificateFile, artifact: Artifact) -> Iterator[Finding]:
    manifest = artifact.manifest
    if made.model != manifest.model:
        yield Finding(
            Fault.FILES, f"the certificate is of the model {made.model}, not of {manifest.model}"
        )
    have = meaning(manifest)
    for what in ("task", "preprocessing"):
        if getattr(made, what) != have[what]:
            yield Finding(Fault.FILES, f"the certificate is of another {what} than the artifact's")
    kinds = [artifact.hashes(format, made.precision) for format in FORMATS.values()]
    if made.files in kinds:
        return
    known = {name: digest for kind in kinds for name, digest in kind.items()}
    other = [name for name, digest in made.files.items() if known.get(name, digest) != digest]
    missing = [name for name in made.files if name not in known]
    if other:
        said = f"{other[0]} is another file than the certified one: the hash differs"
    elif missing:
        said = f"{missing[0]}, which is certified, is not among the artifact's {made.precision}"
    else:
        said = f"the artifact serves more {made.precision} files than those that are certified"
    yield Finding(Fault.FILES, said)


def _check_bound(bound: Offline | Earned, artifact: Artifact) -> Iterator[Finding]:
    spec = artifact.manifest.router
    decisions = len(spec.decisions) if spec else 0
    if any(len(one) != decisions for one in bound.candidates):
        yield Finding(
            Fault.ORDER, f"a candidate has not the {decisions} thresholds that the router takes"
        )
        return
    numbers = [tuple(map(from_json, one)) for one in bound.candidates]
    if (places := unordered(numbers)) is not None:
        yield Finding(
            Fault.ORDER,
            f"the order from careful to bold is broken: candidate {places[1] + 1} is nowhere "
            f"bolder than candidate {places[0] + 1}",
        )
    known, guard_limit = artifact.certificates.candidates, spec.guard_limit if spec else None
    whose = "those of the artifact"
    if isinstance(bound, Earned) and bound.proposal is not None:
        yield from _check_proposal(bound, bound.proposal, guard_limit)
        known, guard_limit = bound.proposal.candidates, bound.guard_limit
        whose = "those that were proposed"
    if known and bound.candidates != known[: len(bound.candidates)]:
        yield Finding(Fault.ORDER, f"the candidates are not {whose} in their order")
    if spec is not None and bound.guard_limit != guard_limit:
        yield Finding(Fault.NUMBER, "its guard limit is not that of the artifact")
    if isinstance(bound, Offline):
        yield from _check_offline(bound)
        yield from _check_classes(bound, artifact)
        return
    if not (slices := artifact.manifest.slices).has(bound.slice):
        yield Finding(
            Fault.FILES,
            f"it is of traffic that is {_called(bound.slice or Slices())}, and the artifact's is "
            f"{_called(slices)}",
        )
    yield from _check_earned(bound)


def _called(of: Slice | Slices) -> str:
    if not of.values:
        return "one whole"
    return f"sliced by {of.parameter} into {', '.join(of.values)} and other"


def _check_proposal(bound: Earned, proposal: Proposal, least: float | None) -> Iterator[Finding]:
    name = name_of(proposal.candidates, bound.guard_limit)
    if proposal.name != name:
        yield Finding(
            Fault.NUMBER,
            f"the name of what was proposed does not follow from its guard and candidates: it is "
            f"{name}, the certificate says {proposal.name}",
        )
    if from_json(bound.guard_limit) < from_json(least) or (bound.guard_limit is None) != (
        least is None
    ):
        yield Finding(
            Fault.NUMBER, "traffic raises the limit of a guard, and does not lower or lift it"
        )


def _check_offline(bound: Offline) -> Iterator[Finding]:
    if len(bound.tried) != len(bound.candidates):
        yield Finding(
            Fault.ORDER,
            f"{len(bound.candidates)} candidates, but counts of {len(bound.tried)}: every "
            "candidate up to the certified one must have passed",
        )
        return
    if bound.method != _METHODS[bound.measure]:
        yield Finding(
            Fault.NUMBER, f"{bound.measure.replace('_', ' ')} is not tested by {bound.method}"
        )
    for place, one in enumerate(bound.tried, 1):
        counted = tuple(map(sum, zip(*one.by_class, strict=True)))
        if counted and counted != (one.disagreements, bound.samples):
            yield Finding(
                Fault.NUMBER,
                f"the classes of candidate {place} have {counted[0]} of {counted[1]} "
                f"disagreements, all together {one.disagreements} of {bound.samples}",
            )
        elif one.disagreements > bound.samples:
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} disagrees on {one.disagreements} of {bound.samples} samples",
            )
        # What accuracy lost is worth follows from the single losses, and not from their number.
        elif bound.method == "exact_binomial":
            p = p_value_of_counts(one.disagreements, bound.samples, one.by_class, bound.risk)
            if not math.isclose(p, one.p_value, rel_tol=_tolerance(bound.samples), abs_tol=1e-300):
                yield Finding(
                    Fault.NUMBER,
                    f"the p-value of candidate {place} does not follow from its counts: it is "
                    f"{p:.6g}, the certificate says {one.p_value:.6g}",
                )
        if one.p_value > 1 - bound.confidence:
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} was not passed: its p-value {one.p_value:.3g} is above "
                f"{1 - bound.confidence:.3g}",
            )


def _check_classes(bound: Offline, artifact: Artifact) -> Iterator[Finding]:
    """Whether each class was counted by itself, if the artifact asks for that."""
    spec, classes = artifact.manifest.router, artifact.manifest.task.classes
    if bound.measure != "disagreement":
        return
    for place, one in enumerate(bound.tried, 1):
        if one.by_class and len(one.by_class) != classes:
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} has counts of {len(one.by_class)} classes, and there are "
                f"{classes}",
            )
        elif spec is not None and spec.per_class and not one.by_class:
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} was counted on all rows together, and the artifact asks for "
                "each class by itself (per_class)",
            )


_METHODS = {"disagreement": "exact_binomial", "accuracy_lost": "betting"}


def _tolerance(samples: int) -> float:
    """Relative difference of two p-values that rounding explains.

    They are the exponentials of differences of logarithms of factorials, which are known to so many
    digits.
    """
    return max(TOLERANCE, 8 * sys.float_info.epsilon * samples * math.log(samples))


def p_value_of_counts(
    disagreements: int, samples: int, by_class: tuple[tuple[int, int], ...], risk: float
) -> float:
    """The exact binomial p-value, of all classes together or of the worst one by union bound."""
    if not by_class:
        return p_value(disagreements, samples, risk)
    return min(1.0, len(by_class) * max(p_value(wrong, count, risk) for wrong, count in by_class))


def _check_earned(bound: Earned) -> Iterator[Finding]:
    if len(bound.crossings) != len(bound.candidates):
        yield Finding(
            Fault.ORDER,
            f"{len(bound.candidates)} candidates, but {len(bound.crossings)} crossings: every "
            "candidate up to the earned one must have crossed",
        )
        return
    numbers = [one.number for one in bound.epochs]
    # Epochs taken over from elsewhere may skip numbers, but not repeat one.
    if numbers != sorted(set(numbers)) or bound.epoch not in numbers:
        yield Finding(
            Fault.ORDER, f"the ledger of epochs does not go up, or lacks epoch {bound.epoch}"
        )
        return
    first, *later = bound.epochs
    begins = first.because == "reset" or (first.because == "start" and first.number == 1)
    if not begins or any(one.because == "start" for one in later):
        yield Finding(
            Fault.ORDER,
            "the ledger of epochs does not begin with the model's start or a reset, or has another "
            "start",
        )
        return
    delta = (1 - bound.confidence) * bound.share
    for one in bound.epochs:
        level = level_of(one.number, delta)
        if not math.isclose(level, one.level, rel_tol=TOLERANCE):
            yield Finding(
                Fault.NUMBER,
                f"the level of epoch {one.number} does not follow from the confidence: it is "
                f"{level:.6g}, the certificate says {one.level:.6g}",
            )
    epoch = bound.epochs[numbers.index(bound.epoch)]
    for place, crossing in enumerate(bound.crossings, 1):
        if not crossing.disagreements <= crossing.rows <= epoch.rows:
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} crossed with {crossing.disagreements} of {crossing.rows} rows, "
                f"in an epoch of {epoch.rows}",
            )
            continue
        wealth = float(log_wealth(crossing.rows, crossing.disagreements, bound.risk))
        if not math.isclose(wealth, crossing.log_wealth, rel_tol=TOLERANCE):
            yield Finding(
                Fault.NUMBER,
                f"the wealth of candidate {place} does not follow from its counts: its logarithm "
                f"is {wealth:.6g}, the certificate says {crossing.log_wealth:.6g}",
            )
        elif wealth < math.log(1 / epoch.level):
            yield Finding(
                Fault.NUMBER,
                f"candidate {place} has not crossed: the logarithm of its wealth {wealth:.4g} is "
                f"below {math.log(1 / epoch.level):.4g}",
            )
