"""Placing exits: guard limits, the cuts worth an exit, and the first safe exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import onnx
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.graph.assemble import with_exits
from skipserve.graph.cut import Stage, Stages
from skipserve.graph.memory import open_model
from skipserve.routing.choose import RATE, Costs, choose_exits, row_seconds
from skipserve.routing.config import ExitsConfig
from skipserve.routing.corruptible import Corruptible
from skipserve.routing.exits import Exit
from skipserve.routing.guards import limits, with_limit
from skipserve.routing.network import Network
from skipserve.routing.propose import Observations, greedy
from skipserve.routing.reading import ExitReader, observations_of, open_stepper, read_all
from skipserve.routing.stopping import inside_so_far
from skipserve.routing.stress import ROWS, StressResult, first_exit, stress_test
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.rows import Rows

Say = Callable[[str], None]


@dataclass(frozen=True)
class FittedRouter:
    """A fitted router.

    Attributes:
        exits: What is read at each cut, in order; those before the first exit only guard.
        chosen: How the cuts were chosen, in words.
        first: Why exits begin where they do, in words.
        stress: How it does on corrupted rows, at thresholds for 1 % disagreement.
    """

    exits: tuple[Exit, ...]
    chosen: str
    first: str
    stress: tuple[StressResult, ...] = ()


@dataclass(frozen=True)
class PlacementTrial:
    """Exits at every cut, and their readings on rows that nothing was fitted to.

    Attributes:
        exits: At every cut.
        reader: Reads them.
        distances: From calibration, at every cut [N, cuts].
        ordinary: What a router would see.
        kept: The cuts that are worth an exit.
        guarded: The cuts that have a guard: those, depth 0, and those asked for before the first
            exit.
        chosen: How they were chosen, in words.
        row_s: Mean seconds of a lone row with these exits.
    """

    exits: tuple[Exit, ...]
    reader: ExitReader
    distances: NDArray[np.float32]
    ordinary: Observations
    kept: tuple[int, ...]
    guarded: tuple[int, ...]
    chosen: str
    row_s: float


def weigh(
    network: Network,
    stages: Stages,
    exits: Sequence[Exit],
    tail: Stage | None,
    config: ExitsConfig,
    proposing: Rows,
) -> PlacementTrial:
    """Choose the cuts worth an exit by measured cost.

    Args:
        network: What is routed.
        stages: Cut at every exit.
        exits: At every cut that can be read.
        tail: The network's own head, where exits share it.
        config: What was asked for.
        proposing: Rows that nothing is fitted to.
    """
    models = with_exits(stages, exits, network.model.graph.input, tail)
    stepper = open_stepper(models, exits, network.depth)
    readings = read_all(stepper, proposing)
    limit = _limits(readings.distances, config.guard)
    ordinary = observations_of(network, exits, readings, limit)
    costs = _costs(stages, models, proposing)
    # The others are there for their guards alone.
    kept = [i for i, one in enumerate(exits) if config.allows(one.blocks)]
    guarded, chosen = list(range(len(exits))), "as configured"
    if config.at == "auto":
        kept, chosen = choose_exits(ordinary, costs, kept)
        guarded = sorted({0, *kept})
    seconds = row_seconds(kept, ordinary, costs, guarded)
    return PlacementTrial(
        *(tuple(exits), stepper, readings.distances, ordinary),
        *(tuple(kept), tuple(guarded), chosen, seconds),
    )


def place(
    network: Network, trial: PlacementTrial, config: ExitsConfig, proposing: Rows, say: Say
) -> FittedRouter:
    """Stress the router, and let exits begin where it passes.

    A cut before the first exit keeps its guard, for the router was tested with it.
    """
    guarded = list(trial.guarded)
    limit = np.full(len(trial.exits), np.inf)
    limit[guarded] = _limits(trial.distances[:, guarded], config.guard)
    inside = inside_so_far(trial.distances, limit)
    ordinary = replace(trial.ordinary, inside=inside).only(trial.kept)
    corrupted = {
        kind: observed.only(trial.kept)
        for kind, observed in _stress_all(network, trial, limit, proposing, say).items()
    }
    first, why = 0, "as configured"
    if config.first == "auto":
        hard = {kind: observed for (kind, is_hard), observed in corrupted.items() if is_hard}
        first, why = first_exit(ordinary, hard, RATE)
    leaving = trial.kept[first:]
    decisions = range(first, len(trial.kept))
    thresholds = greedy(ordinary.only(decisions), RATE)
    stress = tuple(
        stress_test(kind, is_hard, observed.only(decisions), thresholds)
        for (kind, is_hard), observed in corrupted.items()
    )
    # A guard that is off needs no cut; the first stage ends at depth 0 whatever is read there.
    final = tuple(
        replace(
            trial.exits[i],
            guard=with_limit(trial.exits[i].guard, float(limit[i])),
            leaves=i in leaving,
        )
        for i in guarded
        if i == 0 or i in leaving or np.isfinite(limit[i])
    )
    return FittedRouter(final, trial.chosen, why, stress)


def everywhere(
    network: Network,
    stages: Stages,
    exits: Sequence[Exit],
    tail: Stage | None,
    config: ExitsConfig,
    proposing: Rows,
) -> FittedRouter:
    """Decide before every block, for the policy ``skip``."""
    models = with_exits(stages, exits, network.model.graph.input, tail)
    readings = read_all(open_stepper(models, exits, network.depth), proposing)
    # Behind a block that was left out no stream is like calibration: one guard decides.
    (limit,) = _limits(readings.distances[:, :1], config.guard)
    first = replace(exits[0], guard=with_limit(exits[0].guard, float(limit)))
    final = (first, *exits[1:])
    return FittedRouter(final, "a decision before every block, or as configured", "")


def _limits(distances: NDArray[np.float32], quantile: float) -> NDArray[np.float64]:
    """Limits of the guards [cuts]; +inf where they are off.

    Raises:
        ConfigError: If so many rows overflow that no limit would hold anything back.
    """
    if quantile == 1:
        return np.full(distances.shape[1], np.inf)
    limit = limits(distances, quantile)
    if not np.isfinite(limit).all():
        broken = int((~np.isfinite(distances)).any(axis=1).sum())
        raise ConfigError(
            f"{broken} of {len(distances)} rows overflow inside the network, more than a guard "
            f"holds back with exits.guard = {quantile:g}; leave them out, or set a lower one"
        )
    return limit


def _stress_all(
    network: Network, trial: PlacementTrial, limit: NDArray[np.float64], rows: Rows, say: Say
) -> dict[tuple[str, bool], Observations]:
    """Observations of corrupted copies, by kind and whether it is a hard one.

    A copy that is as it was tests nothing: such rows are left out.
    """
    corruptible = Corruptible.of(rows, network.signature)
    some, random = rows[:ROWS], np.random.default_rng(1)
    found = {}
    for is_hard, kinds in ((True, corruptible.hard), (False, corruptible.mild)):
        for kind, corrupt in kinds.items():
            copy = corruptible.copy(some, corrupt, random)
            changed = corruptible.changed(some, copy)
            if not changed.any():
                say(f"stress: {kind} changes no row and is left out")
                continue
            say(f"stress: {kind}")
            readings = read_all(trial.reader, copy[changed])
            found[kind, is_hard] = observations_of(network, trial.exits, readings, limit)
    return found


def _costs(stages: Stages, models: Sequence[onnx.ModelProto], rows: Rows) -> Costs:
    """Time of each stage and each exit for one row: medians of interleaved runs on one thread."""
    bare = [OnnxPiece(open_model(stage.model)) for stage in stages.stages]
    read = [OnnxPiece(open_model(model)) for model in models]
    tensors = dict(rows[:1].tensors)
    without, with_exit = [], []
    for plain, reading in zip(bare, read, strict=True):
        feeds = {name: tensors[name] for name in plain.inputs}
        more = {name: tensors[name] for name in reading.inputs}
        tensors.update(zip(plain.outputs, plain.run(feeds), strict=True))
        times = _interleaved([(plain, feeds), (reading, more)])
        without.append(times[0])
        with_exit.append(max(times[1] - times[0], 0.0))
    return Costs(tuple(without), tuple(with_exit[:-1]))


def _interleaved(runs: Sequence[tuple[OnnxPiece, dict[str, NDArray[np.float32]]]]) -> list[float]:
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(15):
        for spent, (piece, feeds) in zip(times, runs, strict=True):
            start = perf_counter()
            piece.run(feeds)
            spent.append(perf_counter() - start)
    return [float(np.median(spent)) for spent in times]
