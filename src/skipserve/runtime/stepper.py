"""Stepping: run a stage, read signal and answer, let rows leave, go on with the rest.

The rows on their way are explicit (:class:`Wave`): those of later requests may join them where a
stage begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import stops, within
from skipserve.runtime.rows import Rows

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]
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
    """What may happen behind one stage.

    Attributes:
        blocks: Blocks run when a row gets there.
        decision: Column of the thresholds, or ``None`` where rows are only guarded.
    """

    blocks: int
    decision: int | None


@dataclass(frozen=True)
class Limits:
    """What rows are compared with.

    Attributes:
        thresholds: [B, decisions], float32; +inf never lets a row leave.
        guard: [B], float32; a row farther than this from calibration runs everything, +inf holds
            nothing back.
    """

    thresholds: Floats
    guard: Floats

    def __getitem__(self, index: NDArray[Any]) -> Limits:
        return Limits(self.thresholds[index], self.guard[index])


@dataclass
class Wave:
    """Rows on their way, all about to run the same stage.

    Attributes:
        rows: Which row of the batch each is [n], int64.
        tensors: Inputs of the network, side rows and the stream, one entry a row.
        inside: Whether each was inside the guard at every cut so far [n], bool.
        limits: Of each.
    """

    rows: NDArray[np.int64]
    tensors: Tensors
    inside: NDArray[np.bool_]
    limits: Limits

    def __getitem__(self, index: NDArray[np.bool_]) -> Wave:
        """Some of the rows."""
        tensors = {name: tensor[index] for name, tensor in self.tensors.items()}
        return Wave(self.rows[index], tensors, self.inside[index], self.limits[index])


@dataclass(frozen=True)
class Stepped:
    """What came of a batch.

    Attributes:
        answers: [B, width], float32.
        depth_run: Blocks run for each row [B], int64.
        held_back: Rows that the guard sent to full depth [B], bool.
        signals: By row and decision [B, decisions], float32; NaN where a row did not get there.
        left_out: Under ``skip``, whether a row left out the blocks behind each decision
            [B, decisions], bool.
    """

    answers: Floats
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    signals: Floats
    left_out: NDArray[np.bool_] | None = None


class Stepper:
    """The stages of a network and what is decided behind each.

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
        policy: Literal["exit", "skip"] = "exit",
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
        self._needed = needed

    def run(self, rows: Rows, limits: Limits) -> Stepped:
        """Run each row as deep as its limits ask.

        A row leaves only if it provably may: its distance was within the limit at every cut so
        far, and its signal reaches the threshold. Whatever is not a number, or infinite, is not.
        """
        count = len(rows)
        out = _Outcome(count, self.decisions, self._depth)
        everyone = np.arange(count)
        wave = Wave(everyone, rows.tensors, np.ones(count, dtype=bool), limits)
        run = self._exit if self._policy == "exit" else self._skip
        run(wave, out)
        return out.done()

    def _exit(self, wave: Wave, out: _Outcome) -> None:
        for i, cut in enumerate(self._cuts):
            read = self._advance(wave, i)
            stopped = self._decide(wave, cut, read, out)
            if stopped is None or not stopped.any():
                continue
            gone = wave.rows[stopped]
            out.answer(gone, read[ANSWER][stopped])
            out.depth_run[gone] = cut.blocks
            if stopped.all():
                return
            wave = wave[~stopped]
        self._finish(wave, out)

    def _skip(self, wave: Wave, out: _Outcome) -> None:
        self._advance(wave, 0)
        out.left_out = np.zeros((len(wave.rows), self.decisions), dtype=bool)
        ends = [*(cut.blocks for cut in self._cuts[1:]), self._depth]
        for i, (cut, end) in enumerate(zip(self._cuts, ends, strict=True)):
            piece = self._exits[i]
            feeds = {name: wave.tensors[name] for name in piece.inputs}
            read = dict(zip(piece.outputs, piece.run(feeds), strict=True))
            # Behind a block that was left out no stream is like calibration: one guard decides.
            stopped = self._decide(wave, cut, read, out, guards=i == 0)
            if stopped is None or not stopped.any():
                self._advance(wave, i + 1)
                continue
            out.left_out[:, i] = stopped
            out.depth_run[stopped] -= end - cut.blocks
            stream = wave.tensors[self._streams[i]]
            if not stopped.all():
                going = wave[~stopped]
                self._advance(going, i + 1)
                stream = stream.copy()
                stream[~stopped] = going.tensors[self._streams[i + 1]]
            wave.tensors[self._streams[i + 1]] = stream
        self._finish(wave, out)

    def _advance(self, wave: Wave, i: int) -> Tensors:
        """Run stage ``i`` on a wave; what its exit reads there."""
        piece = self._stages[i]
        feeds = {name: wave.tensors[name] for name in piece.inputs}
        made = dict(zip(piece.outputs, piece.run(feeds), strict=True))
        needed = self._needed[i]
        carried = {name: t for name, t in wave.tensors.items() if name in needed}
        carried.update((name, t) for name, t in made.items() if name in needed)
        wave.tensors = carried
        return made

    def _decide(
        self, wave: Wave, cut: Cut, read: Tensors, out: _Outcome, guards: bool = True
    ) -> NDArray[np.bool_] | None:
        """Which rows of a wave stop at a cut, or ``None`` where none may."""
        if guards:
            wave.inside &= within(read[DISTANCE], wave.limits.guard)
            out.held_back[wave.rows] = ~wave.inside
        if cut.decision is None:
            return None
        signal = read[SIGNAL]
        out.signals[wave.rows, cut.decision] = signal
        threshold = wave.limits.thresholds[:, cut.decision]
        return stops(signal, threshold) & wave.inside

    def _finish(self, wave: Wave, out: _Outcome) -> None:
        piece = self._stages[-1]
        (answer,) = piece.run({name: wave.tensors[name] for name in piece.inputs})
        out.answer(wave.rows, answer)

    def read(self, rows: Rows) -> Readings:
        """Run rows through every stage, reading every exit on the way."""
        wave = Wave(
            np.arange(len(rows)),
            rows.tensors,
            np.ones(len(rows), dtype=bool),
            Limits(np.empty((len(rows), 0), np.float32), np.empty(len(rows), np.float32)),
        )
        answers, signals, distances = [], [], []
        for i, cut in enumerate(self._cuts):
            read = self._advance(wave, i)
            distances.append(read[DISTANCE])
            if cut.decision is not None:
                answers.append(read[ANSWER])
                signals.append(read[SIGNAL])
        out = _Outcome(len(rows), self.decisions, self._depth)
        self._finish(wave, out)
        final = out.done().answers
        return Readings(
            np.stack([*answers, final], axis=1),
            np.stack(signals, axis=1) if signals else np.empty((len(rows), 0), np.float32),
            np.stack(distances, axis=1),
        )


@dataclass(frozen=True)
class Readings:
    """What every exit read off rows that ran everything.

    Attributes:
        answers: At each decision, and at full depth [N, decisions + 1, width], float32.
        signals: At each decision [N, decisions], float32.
        distances: At each cut [N, cuts], float32; 1 is the limit.
    """

    answers: Floats
    signals: Floats
    distances: Floats


class _Outcome:
    """What is known of a batch so far."""

    def __init__(self, count: int, decisions: int, depth: int) -> None:
        self._answers: Floats | None = None
        self._count = count
        self.depth_run = np.full(count, depth, dtype=np.int64)
        self.held_back = np.zeros(count, dtype=bool)
        self.signals = np.full((count, decisions), np.nan, dtype=np.float32)
        self.left_out: NDArray[np.bool_] | None = None

    def answer(self, rows: NDArray[np.int64], answers: NDArray[Any]) -> None:
        if self._answers is None:
            if len(rows) == self._count:
                self._answers = answers
                return
            self._answers = np.empty((self._count, *answers.shape[1:]), np.float32)
        self._answers[rows] = answers

    def done(self) -> Stepped:
        assert self._answers is not None
        return Stepped(self._answers, self.depth_run, self.held_back, self.signals, self.left_out)
