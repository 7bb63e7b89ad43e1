"""What a model runs on, and what evidence of it is bound to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS, BackendName, Precision, Provider
from skipserve.artifacts.certificates import from_json
from skipserve.earning.binding import binding_of
from skipserve.earning.ladder import Ladder
from skipserve.earning.proofs import unordered
from skipserve.earning.rules import Rules
from skipserve.errors import StateError


@dataclass(frozen=True)
class Kind:
    """What workers run a model on."""

    backend: BackendName
    provider: Provider
    precision: Precision

    @staticmethod
    def of(*labels: Collection[str]) -> Kind:
        """The kind that the labels of ``skipserve_model_info`` say, each with all its values.

        Raises:
            StateError: If they say none, or several.
        """
        if any(len(one) != 1 for one in labels):
            told = "; ".join(" and ".join(sorted(one)) or "nothing" for one in labels)
            raise StateError(
                f"the workers run on {told}, and a certificate is of one kind; see why they "
                "differ, or wait until they are there"
            )
        backend, provider, precision = (next(iter(one)) for one in labels)
        return Kind(backend, provider, precision)  # type: ignore[arg-type]


def only_kind(kinds: Collection[Kind]) -> Kind:
    """What all workers run on; there is one at least.

    Raises:
        StateError: If they differ.
    """
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{k.backend} {k.provider} {k.precision}" for k in kinds))
        raise StateError(
            f"its workers run on {told}, and a certificate is of one; see why they differ, or "
            "set provider and precision"
        )
    (kind,) = kinds
    return kind


def require_order(ladder: Ladder) -> None:
    """Check that candidates go from careful to bold, for what they prove follows from that.

    Raises:
        StateError: If they do not.
    """
    pair = unordered(ladder.thresholds.tolist())
    if pair is not None:
        raise StateError(
            f"its candidates {pair[0]} and {pair[1]} are not ordered from careful to bold; "
            "propose them anew with `skipserve calibrate`"
        )


def rules_of(artifact: Artifact) -> Rules:
    """The rules that a model's epochs go by."""
    spec, own = artifact.manifest.router, own_ladder(artifact)
    assert spec is not None
    age_rows, age_s = spec.greatest_age_rows, spec.greatest_age_s
    return Rules(
        risks=spec.risks,
        candidates=len(own),
        level=spec.earned_level,
        epoch_rows=spec.epoch_rows,
        greatest_age_rows=spec.epoch_rows if age_rows is None else age_rows,
        greatest_age_s=np.inf if age_s is None else age_s,
        propose_rows=spec.propose_rows,
        own=own,
    )


def own_ladder(artifact: Artifact) -> Ladder:
    """An artifact's own candidates, and its guard."""
    spec = artifact.manifest.router
    assert spec is not None
    table = artifact.certificates.table(len(spec.decisions))
    return Ladder(table, from_json(spec.guard_limit))


def binding_for(artifact: Artifact, kind: Kind, of_slice: str = "") -> str:
    """What evidence of a slice of an artifact's traffic is bound to where it runs on this."""
    files = artifact.hashes(FORMATS[kind.backend], kind.precision)
    about = own_ladder(artifact).thresholds, files, kind.precision, kind.provider
    return binding_of(artifact.manifest, *about, of_slice)
