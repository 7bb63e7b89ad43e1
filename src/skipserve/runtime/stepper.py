"""Stepping: run a stage, read signal and answer, let rows leave, continue with the rest.

The rows on their way are explicit (:class:`Wave`): those of later requests may join them where a
stage begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.config import Policy
from skipserve.routing.stopping import stops, within
from skipserve.runtime.rows import Rows
from skipserve.runtime.trail import begin
from skipserve.runtime.wave import FinishedRows, Floats, Limits, RowResults, Tensors, Wave, gathered

# Outputs of a stage beside its stream (graph/assemble.py).
ANSWER, SIGNAL, DISTANCE = "exit/answer", "exit/signal", "exit/distance"


class Piece(Protocol):
    """An open graph: named tensors in, named tensors out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Outputs in their order; the batch is the first dimension of each."""
        ...


@dataclass(frozen=True)
class Cut:
    """A cut: what may happen behind one stage.

    Attributes:
        blocks: Blocks run when a row gets there.
        decision: Column of the thresholds, or ``None`` where rows are only guarded.
    """

    blocks: int
    decision: int | None


class Stepper:
    """Runs the stages of a network and decides behind each.

    Args:
        stages: One more than there are cuts, each of which reads its exit itself. Under ``skip``
            two more: the last is the network's head, which every row runs.
        cuts: Behind each stage that something is read behind.
        depth: Blocks of the network.
        policy: ``exit``: a row that stops leaves for good; ``skip``: it leaves out one stage.
        exits: Under ``skip``, what reads the stream at each cut.
    """

    def __init__(
        self,
        stages: Sequence[Piece],
        cuts: Sequence[Cut],
        depth: int,
        policy: Policy = "exit",
        exits: Sequence[Piece] = (),
    ) -> None:
        self._stages = list(stages)
        self._cuts = list(cuts)
        self._depth = depth
        self._policy = policy
        self._exits = list(exits)
        self._streams = [piece.outputs[0] for piece in stages]
        self.decisions = sum(cut.decision is not None for cut in cuts)
        # A tensor is carried as long as a later stage needs it.
        needed: list[frozenset[str]] = [frozenset()]
        for piece in reversed(self._stages[1:]):
            needed.insert(0, needed[0] | frozenset(piece.inputs))
        if exits:
            read = frozenset(name for piece in exits for name in piece.inputs)
            needed = [one | read for one in needed]
        # Whose names are known by then: what came in, and what the stages so far have made.
        made = [frozenset(piece.outputs) for piece in self._stages]
        came = frozenset(name for piece in (*stages, *exits) for name in piece.inputs)
        known = came.difference(*made)
        self._carried: list[tuple[str, ...]] = []
        for one, ours in zip(needed, made, strict=True):
            known |= ours
            self._carried.append(tuple(sorted(one & known)))

    def begin(self, rows: Rows, limits: Limits, names: NDArray[np.int64]) -> Wave:
        """Rows before the first stage.

        Args:
            rows: B rows.
            limits: Of each.
            names: What to call each [B].
        """
        signals = np.full((len(rows), self.decisions), np.nan, dtype=np.float32)
        inside = np.ones(len(rows), dtype=bool)
        return Wave(names, rows.tensors, inside, limits, signals, begin(limits.drawn))

    def step(self, wave: Wave, i: int) -> tuple[FinishedRows | None, Wave | None]:
        """Run stage ``i`` on a wave; returns the rows that leave and those that continue.

        A row leaves only if it provably may: its distance was within the limit at every cut so
        far, and its signal reaches the threshold. Whatever is not a number, or infinite, is not.
        A row that gives evidence leaves nowhere. Behind the last stage all leave; under ``skip``
        there is one step, the whole network.
        """
        if self._policy == "skip":
            return self._skip(wave), None
        if i == len(self._cuts):
            return self._finish(wave, np.full(len(wave), self._depth, dtype=np.int64)), None
        cut = self._cuts[i]
        read = self._advance(wave, i)
        stopped = self._decide(wave, cut, read)
        if wave.trail is not None:
            wave.trail = wave.trail.past(read[DISTANCE])
            if stopped is not None:
                wave.trail = wave.trail.with_decision(read[ANSWER])
                stopped &= ~wave.trail.drawn
        gone = 0 if stopped is None else int(np.count_nonzero(stopped))
        if stopped is None or not gone:
            return None, wave
        everyone = gone == len(wave)
        leaving = slice(None) if everyone else np.flatnonzero(stopped)
        results = RowResults(
            read[ANSWER][leaving],
            np.full(gone, cut.blocks, dtype=np.int64),
            np.zeros(gone, dtype=bool),
            wave.signals[leaving],
        )
        left = FinishedRows(wave.rows[leaving], results)
        return left, None if everyone else wave.take(np.flatnonzero(~stopped))

    def run(self, rows: Rows, limits: Limits) -> RowResults:
        """Run each row as deep as its limits ask."""
        wave: Wave | None = self.begin(rows, limits, np.arange(len(rows)))
        left, i = [], 0
        while wave is not None:
            gone, wave = self.step(wave, i)
            if gone is not None:
                left.append(gone)
            i += 1
        return gathered(left)

    def _skip(self, wave: Wave) -> FinishedRows:
        self._advance(wave, 0)
        left_out = np.zeros((len(wave), self.decisions), dtype=bool)
        depth_run = np.full(len(wave), self._depth, dtype=np.int64)
        ends = [*(cut.blocks for cut in self._cuts[1:]), self._depth]
        for i, (cut, end) in enumerate(zip(self._cuts, ends, strict=True)):
            piece = self._exits[i]
            feeds = {name: wave.tensors[name] for name in piece.inputs}
            read = dict(zip(piece.outputs, piece.run(feeds), strict=True))
            # Behind a block that was left out no stream is like calibration: one guard decides.
            stopped = self._decide(wave, cut, read, guards=i == 0)
            if stopped is None or not stopped.any():
                self._advance(wave, i + 1)
                continue
            left_out[:, i] = stopped
            depth_run[stopped] -= end - cut.blocks
            stream = wave.tensors[self._streams[i]]
            if not stopped.all():
                going = wave.take(np.flatnonzero(~stopped))
                self._advance(going, i + 1)
                stream = stream.copy()
                stream[~stopped] = going.tensors[self._streams[i + 1]]
            wave.tensors[self._streams[i + 1]] = stream
        return self._finish(wave, depth_run, left_out)

    def _advance(self, wave: Wave, i: int) -> Tensors:
        """Run stage ``i`` on a wave; returns what its exit reads."""
        piece = self._stages[i]
        feeds = {name: wave.tensors[name] for name in piece.inputs}
        made = dict(zip(piece.outputs, piece.run(feeds), strict=True))
        before = wave.tensors
        wave.tensors = {
            name: made[name] if name in made else before[name] for name in self._carried[i]
        }
        return made

    def _decide(
        self, wave: Wave, cut: Cut, read: Tensors, guards: bool = True
    ) -> NDArray[np.bool_] | None:
        """Which rows of a wave stop at a cut, or ``None`` where none may."""
        if len(wave) == 1:
            return self._decide_one(wave, cut, read, guards)
        if guards:
            wave.inside &= within(read[DISTANCE], wave.limits.guard)
        if cut.decision is None:
            return None
        signal = read[SIGNAL]
        wave.signals[:, cut.decision] = signal
        threshold = wave.limits.thresholds[:, cut.decision]
        return stops(signal, threshold) & wave.inside

    def _decide_one(
        self, wave: Wave, cut: Cut, read: Tensors, guards: bool
    ) -> NDArray[np.bool_] | None:
        """The same of a lone row, in numbers: many times faster than in arrays."""
        if guards:
            wave.inside[0] &= within(read[DISTANCE].item(), wave.limits.guard.item())
        if cut.decision is None:
            return None
        signal = wave.signals[0, cut.decision] = read[SIGNAL].item()
        threshold = wave.limits.thresholds.item(0, cut.decision)
        return wave.inside & stops(signal, threshold)

    def _finish(
        self,
        wave: Wave,
        depth_run: NDArray[np.int64],
        left_out: NDArray[np.bool_] | None = None,
    ) -> FinishedRows:
        piece = self._stages[-1]
        (answer,) = piece.run({name: wave.tensors[name] for name in piece.inputs})
        held_back = ~wave.inside
        if wave.trail is not None:
            # A guard behind the exit of a row does not count as holding it back.
            inside = within(wave.trail.distances, wave.limits.guard[:, None])
            left = stops(wave.signals, wave.limits.thresholds) & inside
            held_back &= ~(left.any(axis=1) & wave.trail.drawn)
        results = RowResults(answer, depth_run, held_back, wave.signals, left_out, wave.trail)
        return FinishedRows(wave.rows, results)

    def read(self, rows: Rows) -> ExitReadings:
        """Run rows through every stage, reading every exit on the way."""
        count = len(rows)
        nothing = Limits(np.empty((count, self.decisions), np.float32), np.empty(count, np.float32))
        wave = self.begin(rows, nothing, np.arange(count))
        answers, signals, distances = [], [], []
        for i, cut in enumerate(self._cuts):
            read = self._advance(wave, i)
            distances.append(read[DISTANCE])
            if cut.decision is not None:
                answers.append(read[ANSWER])
                signals.append(read[SIGNAL])
        depth_run = np.full(count, self._depth, dtype=np.int64)
        final = self._finish(wave, depth_run).results.answers
        return ExitReadings(
            np.stack([*answers, final], axis=1),
            np.stack(signals, axis=1) if signals else np.empty((len(rows), 0), np.float32),
            np.stack(distances, axis=1),
        )


@dataclass(frozen=True)
class ExitReadings:
    """Readings of every exit for rows that ran everything.

    Attributes:
        answers: At each decision, and at full depth [N, decisions + 1, width], float32.
        signals: At each decision [N, decisions], float32.
        distances: At each cut [N, cuts], float32; 1 is the limit.
    """

    answers: Floats
    signals: Floats
    distances: Floats

    @classmethod
    def joined(cls, parts: Sequence[ExitReadings]) -> ExitReadings:
        """The readings of several batches, one behind the other; at least one."""
        return cls(
            np.concatenate([part.answers for part in parts]),
            np.concatenate([part.signals for part in parts]),
            np.concatenate([part.distances for part in parts]),
        )
