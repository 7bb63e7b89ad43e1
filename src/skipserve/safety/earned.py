"""What a model has earned, for whoever asks: read from its state, beside the keeper that runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.earning.counts import Counts
from skipserve.earning.epochs import in_force
from skipserve.earning.events import Begun, Crossed, Event, Proposed, Withdrawn
from skipserve.earning.ladder import Place
from skipserve.earning.ledger import ladders_of
from skipserve.earning.progress import Progress, progress
from skipserve.earning.proofs import proof_of
from skipserve.earning.transfer import read_earned, take_over, write_earned
from skipserve.errors import ArtifactError
from skipserve.safety.evidence_files import EvidenceFiles
from skipserve.safety.kind import Kind, binding_for, rules_of

# So many lines of history are told.
LATEST = 8
REASONS = {
    "start": "the first",
    "rows": "the one before was over",
    "alarm": "the alarm was raised",
    "reset": "what was earned was forgotten",
}


@dataclass(frozen=True)
class EarnedStatus:
    """How a model stands.

    Attributes:
        epoch: The present one.
        rows: Evidence rows of it, of all replicas.
        epoch_rows: After so many it ends.
        risks: How far each is.
        places: By risk, the candidate in force that was earned, in its ladder.
        proofs: By risk, its crossing.
        withdrawn: Whether the alarm has put the artifact's own certificates out of force.
        history: The latest events, in words.
    """

    epoch: int
    rows: int
    epoch_rows: int
    risks: Sequence[Progress]
    places: Mapping[float, Place | None]
    proofs: Mapping[float, Crossed]
    withdrawn: bool
    history: Sequence[str]


class EarnedRecord:
    """What a slice of a model's traffic has earned.

    Args:
        artifact: Of the model.
        folder: Of its state.
        kind: What its workers run on.
        of_slice: Name of the slice; "" where traffic is one whole.

    Raises:
        ArtifactError: If it has no router, or no candidates.
    """

    def __init__(self, artifact: Artifact, folder: Path, kind: Kind, of_slice: str = "") -> None:
        spec = artifact.manifest.router
        candidates = len(artifact.certificates.candidates)
        if spec is None or not candidates:
            raise ArtifactError(
                f"{artifact.manifest.name} has no router with candidates: there is nothing to earn"
            )
        binding = binding_for(artifact, kind, of_slice)
        self.artifact, self.kind, self.of_slice = artifact, kind, of_slice
        self.spec, self.rules = spec, rules_of(artifact)
        self._files = EvidenceFiles(folder, binding, self.rules, len(spec.decisions))
        self._binding = binding

    def read(self) -> EarnedStatus:
        """How it stands now.

        Raises:
            StateError: If its files are damaged or foreign.
            OSError: If they cannot be read.
        """
        state, now_s = self._files.ledger.read(), time.time()
        counts, shown = self._counts(), 0
        if state.propose_rows:
            shown = len(self._files.shown(state.epoch))
        places = in_force(self.rules, state, counts.rows, now_s)
        pairs = list(zip(self.rules.risks, places, strict=True))
        return EarnedStatus(
            epoch=state.epoch,
            rows=counts.rows,
            epoch_rows=state.epoch_rows,
            risks=[
                progress(self.rules, state, counts, risk, one, 0.0, shown) for risk, one in pairs
            ],
            places=dict(pairs),
            proofs={
                risk: proof
                for risk, one in pairs
                if one is not None and (proof := proof_of(self._files.ledger.events, risk, one))
            },
            withdrawn=state.withdrawn,
            history=_told(self._files.ledger.events),
        )

    @property
    def events(self) -> Sequence[Event]:
        """All that has happened, in order, as it was last read."""
        return self._files.ledger.events

    def size(self, place: Place) -> int:
        """How many candidates there are in the ladder of one."""
        ladders = ladders_of(self._files.ledger.events)
        return len(ladders[place.proposal]) if place.proposal else self.rules.candidates

    def earns(self, found: EarnedStatus) -> bool:
        """Whether rows earn anything, or are evidence for the alarm alone."""
        return self.spec.certificate != "offline" or found.withdrawn

    def write(self, file: Path) -> None:
        """Write what was earned to a file, for :meth:`take_over` elsewhere.

        Raises:
            StateError: If nothing was.
        """
        write_earned(file, self._files.ledger, self._counts().rows, self.rules, time.time())

    def take_over(self, file: Path) -> None:
        """Put in force what was earned elsewhere.

        Raises:
            StateError: If the file is of other files or damaged, or something was earned here.
        """
        take_over(self._files.ledger, read_earned(file, self._binding, self.rules))

    def reset(self) -> None:
        """Forget what was earned, and damage; the artifact's own certificates are in force then."""
        self._files.ledger.reset(time.time())

    def _counts(self) -> Counts:
        state = self._files.ledger.state
        return self._files.counted(state, state.candidates or self.rules.candidates)


def _told(events: Sequence[Event]) -> list[str]:
    lines = []
    for one in events:
        when = datetime.fromtimestamp(one.at_s, timezone.utc).isoformat(" ", "seconds")[:19]
        if isinstance(one, Begun):
            lines.append(f"{when} epoch {one.epoch} began: {REASONS[one.because]}")
        elif isinstance(one, Withdrawn):
            lines.append(
                f"{when} withdrawn: {one.disagreements} of {one.rows:,} evidence rows disagreed"
            )
        elif isinstance(one, Proposed):
            what = "the candidates stay"
            if one.candidates:
                guard = "off" if one.guard_limit is None else f"at {one.guard_limit:.3g}"
                what = f"{len(one.candidates)} candidates, the guard {guard}: {one.proposal[:12]}"
            lines.append(f"{when} proposed on {one.rows:,} rows: {what}")
    return lines[-LATEST:]
