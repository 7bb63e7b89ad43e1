"""Keeps what a slice of traffic has earned: from the counts of all replicas to what is in force.

Whatever is wrong with the files that it is kept in, nothing bolder comes of it: what cannot be read
was not earned, and what cannot be written has not happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from skipserve.artifacts.artifact import Artifact
from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, in_force, reset
from skipserve.earning.events import Event
from skipserve.earning.ladder import OWN, Place, Places
from skipserve.earning.ledger import ladders_of, used_before
from skipserve.earning.proposing import About, propose_anew
from skipserve.earning.state import State
from skipserve.errors import StateError
from skipserve.safety.evidence_files import EvidenceFiles
from skipserve.safety.kind import Kind, binding_for, only_kind, own_ladder, require_order, rules_of
from skipserve.safety.own import own_may_stand, own_places
from skipserve.safety.withdrawal import Withdrawal
from skipserve.slices import sliced

logger = logging.getLogger(__name__)


class Keeper:
    """Keeps the epochs of one model with a router, for a slice of its traffic.

    Args:
        artifact: The model's.
        folder: Of the model's state; shared by its replicas, if it is on a shared volume.
        of_slice: Name of the slice; "" where traffic is one whole.

    Attributes:
        rules: Of its epochs.
        state: Where they stand.
        counts: Evidence of the present epoch, of all replicas.
        shown: Rows that propose, while some do.
        problem: Why nothing can be earned now; empty if it can.
    """

    def __init__(self, artifact: Artifact, folder: Path, of_slice: str = "") -> None:
        spec = artifact.manifest.router
        assert spec is not None
        self._artifact, self._spec, self._folder = artifact, spec, folder
        self._slice, self._name = of_slice, sliced(artifact.manifest.name, of_slice)
        self._ladders = {OWN: own_ladder(artifact)}
        self._used = OWN  # by the epoch before
        self.rules = rules_of(artifact)
        self.state = State()
        self.counts = Counts.none(self.rules.candidates)
        self.shown = 0
        self.problem = ""
        self._kind: Kind | None = None
        self._offline: Places = (None,) * len(spec.risks)
        self._safe = False  # whether what was read can be relied on
        # Until it is read. Without candidates nothing is ever counted, and so nothing on record.
        self._may_stand = not self.rules.candidates
        self._at_s = 0.0
        self._unwritten: Withdrawal | None = None

    @property
    def withdrawn(self) -> bool:
        """Whether the alarm has put the artifact's own certificates out of force."""
        return self.state.withdrawn or self._unwritten is not None

    @property
    def mode(self) -> str:
        """``offline``, ``earned`` or ``both``."""
        return self._spec.certificate

    @property
    def offline(self) -> Places:
        """The places of the artifact's own certificates that are in force."""
        own = self.mode != "earned" and not self.withdrawn
        return self._offline if own else (None,) * len(self.rules.risks)

    @property
    def earning(self) -> bool:
        """Whether rows earn anything: always, or only once the alarm was raised."""
        return self.mode != "offline" or self.withdrawn

    @property
    def own(self) -> bool:
        """Whether the artifact's own certificates hold, also where nothing bolder was earned."""
        known = self._safe or (self._may_stand and not self.problem)
        return known and self.mode != "earned" and not self.withdrawn

    @property
    def epoch(self) -> int:
        """That workers shall count for; 0 while nothing they could count is of use."""
        return self.state.epoch if self._safe else 0

    @property
    def eager(self) -> bool:
        """Whether every row shall give evidence, whatever is in force.

        Earlier rows alone have decided it: their number.
        """
        fresh = self._safe and self.earning and self.state.because != "rows"
        return fresh and not self.problem and self.counts.rows < self._spec.eager_rows

    @property
    def opened(self) -> bool:
        """Whether it is known what the workers run on, and so which own certificates hold."""
        return self._kind is not None

    @property
    def proposing(self) -> bool:
        """Whether rows propose now, and are no evidence."""
        return self._safe and self.earning and self.state.propose_rows > 0

    def size(self, place: Place) -> int:
        """How many candidates there are in the ladder of one that is in force."""
        return len(self._ladders[place.proposal])

    @property
    def in_force(self) -> Places | None:
        """What workers may use for each risk; ``None``: the artifact's own certificates."""
        nothing: Places = (None,) * len(self.rules.risks)
        own = self.own
        if self.problem or self._unwritten or not self._safe or (self.mode == "offline" and own):
            return None if own else nothing
        earned = in_force(self.rules, self.state, self.counts.rows, self._at_s)
        if not own:
            return earned
        found = tuple(map(self.state.bolder, self._offline, earned))
        # If nothing is in force at all, it is to be told: then every row gives evidence.
        stands = found == self._offline and any(one is not None for one in found)
        return None if stands else found

    def look(self, kinds: Collection[Kind], at_s: float) -> None:
        """Take in what was counted, and move the epochs.

        Args:
            kinds: What the workers run on that live.
            at_s: Seconds since 1970, on a clock that never goes back.
        """
        self._at_s = at_s
        problem = ""
        try:
            if kinds and self.rules.candidates:
                self._open(kinds)
                self._look()
            elif self.rules.candidates and not self.opened:
                # Workers that open in a moment go by what they are told now.
                self._may_stand = own_may_stand(self._artifact, self._folder, self._slice)
        except StateError as error:
            problem, self._safe = str(error), False
        except OSError as error:
            where = error.filename or self._folder
            problem = f"{where} cannot be used: {error.strerror}; make room or mend it"
        if problem and problem != self.problem:
            logger.error("%s earns nothing: %s", self._name, problem)
        elif self.problem and not problem:
            logger.warning("%s can earn again", self._name)
        self.problem = problem

    def withdraw(self, rows: int, disagreements: int, epoch: int) -> None:
        """Take everything out of force, unless another replica was first.

        What cannot be written down holds in this process all the same, and is tried again.

        Args:
            rows: Evidence rows on which the alarm was raised.
            disagreements: Among them.
            epoch: That workers counted for meanwhile; 0 for none.
        """
        self._unwritten = Withdrawal(rows, disagreements, epoch)
        if not self._safe:
            return
        try:
            self._withdraw(self._unwritten)
        except (OSError, StateError) as error:
            logger.error(
                "%s: that the alarm was raised cannot be written down (%s); it is tried again",
                *(self._name, error),
            )

    def _withdraw(self, unwritten: Withdrawal) -> None:
        seen, files = self.state, self._files

        def decided(state: State) -> Sequence[Event]:
            if unwritten.is_settled(files.ledger.events):
                return ()  # another replica was first, or all of it was forgotten
            of_epoch = self.counts.rows if state.epoch == seen.epoch else 0
            return unwritten.events(self.rules, state, of_epoch, self._at_s)

        self._turn(decided)
        self._unwritten = None

    def reset(self) -> None:
        """Begin anew, with the artifact's own certificates if it has some.

        What cannot be written down has not happened, and is told.
        """
        problem = self.problem or "its workers are not there yet"
        if self._safe:
            try:
                self._turn(lambda state: reset(self.rules, state.epoch, self._at_s))
            except (OSError, StateError) as error:
                problem = str(error)
            else:
                self._unwritten = None  # the operator has seen it
                return
        logger.error(
            "%s: that what was earned is forgotten cannot be written down (%s); nothing has "
            "changed: mend it, and switch it on again",
            *(self._name, problem),
        )

    def _turn(self, decided: Callable[[State], Sequence[Event]]) -> None:
        self._files.ledger.turn(decided)
        self._take(self._files.ledger.state)

    def _open(self, kinds: Collection[Kind]) -> None:
        kind = only_kind(kinds)
        if kind == self._kind:
            return
        require_order(self._ladders[OWN])
        binding = binding_for(self._artifact, kind, self._slice)
        decisions = len(self._spec.decisions)
        self._files = EvidenceFiles(self._folder, binding, self.rules, decisions)
        self._offline = own_places(self._artifact, kind)
        self._kind = kind

    def _look(self) -> None:
        self._take(self._files.ledger.read())
        self._safe = True
        if self._unwritten is not None:
            self._withdraw(self._unwritten)
            return
        self.counts = self._files.counted(self.state, len(self._ladders[self.state.proposal]))
        self._files.need_room()
        if self.proposing:
            self._propose()
            return
        earning = self.earning
        if not decide(self.rules, self.state, self.counts, self._at_s, earning):
            return
        seen = self.state.epoch

        def decided(state: State) -> Sequence[Event]:
            if state.epoch != seen:
                return ()
            return decide(self.rules, state, self.counts, self._at_s, earning)

        self._turn(decided)
        self._files.tidy(self.state)

    def _propose(self) -> None:
        """Fix what the epoch earns for, once its first rows are together."""
        state, spec = self.state, self._spec
        rows = self._files.shown(state.epoch)
        self.shown = len(rows)
        # The build file may ask for fewer since the epoch began: none leaves the ladder as it was.
        enough = min(state.propose_rows, self.rules.propose_rows)
        if self.shown < enough:
            return
        needed = {OWN, self._used, *(old.proposal for _, old in state.held)}
        depth = self._artifact.manifest.depth
        proposed = propose_anew(
            rows[:enough],
            About(np.array([*spec.decisions, depth]), spec.risks, spec.guard_quantile),
            {name: self._ladders[name] for name in sorted(needed)},
            *(self._used, state.epoch, self._at_s),
        )

        def decided(now: State) -> Sequence[Event]:
            return [proposed] if now.epoch == state.epoch and now.propose_rows else ()

        self._turn(decided)
        self._files.tidy(self.state)

    def _take(self, state: State) -> None:
        events = self._files.ledger.events
        self._ladders = {OWN: self._ladders[OWN], **ladders_of(events)}
        self._used = used_before(events, state.epoch)
        if (state.epoch, state.proposal) != (self.state.epoch, self.state.proposal):
            self.counts = Counts.none(len(self._ladders[state.proposal]))
            self.shown = 0
        self.state = state
