"""An artifact's own certificates: which of them hold for what runs, and whether they may stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS, BackendName, Precision, Provider
from skipserve.earning.ladder import Place, Places
from skipserve.earning.ledger import Ledger
from skipserve.errors import StateError
from skipserve.safety.kind import Kind, binding_for, rules_of


def own_places(artifact: Artifact, kind: Kind) -> Places:
    """The places of the artifact's own certificates that hold for what runs, one a risk.

    Args:
        artifact: With a router.
        kind: What its workers run on.
    """
    spec, made = artifact.manifest.router, artifact.certificates
    assert spec is not None
    files = artifact.hashes(FORMATS[kind.backend], kind.precision)
    held = {
        one.risk: Place(one.candidate)
        for one in made.of_files(spec, files, kind.precision, kind.provider)
        if one.measure == "disagreement" and one.confidence >= spec.offline_confidence
    }
    return tuple(held.get(risk) for risk in spec.risks)


def own_may_stand(artifact: Artifact, folder: Path, of_slice: str = "") -> bool:
    """Whether its own certificates may be in force before it is known what its workers run on.

    They may not if the alarm is on record for anything that they could run on, or if that cannot
    be read.

    Args:
        artifact: Of the model.
        folder: Of its state.
        of_slice: Name of the slice; "" where traffic is one whole.
    """
    spec = artifact.manifest.router
    if spec is None:
        return True
    if spec.certificate == "earned":
        return False
    rules = rules_of(artifact)
    ledgers = (
        Ledger(folder, binding_for(artifact, kind, of_slice), rules) for kind in _kinds(artifact)
    )
    try:
        return not any(ledger.read().withdrawn for ledger in ledgers)
    except (StateError, OSError):
        return False


def _kinds(artifact: Artifact) -> Iterator[Kind]:
    backends: tuple[BackendName, ...] = get_args(BackendName)
    precisions: tuple[Precision, ...] = get_args(Precision)
    providers: tuple[Provider, ...] = get_args(Provider)
    for backend in backends:
        for precision in precisions:
            if artifact.hashes(FORMATS[backend], precision):
                yield from (Kind(backend, provider, precision) for provider in providers)
