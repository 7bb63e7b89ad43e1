"""Milliseconds a row at full, fixed and routed depth, measured on the open files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.torch_files import plain_graph
from skipserve.building.fixed_alone import fixed_alone
from skipserve.graph.memory import open_model
from skipserve.graph.precision import to_fp16
from skipserve.networks import ResidualNetwork
from skipserve.reporting.model import Model
from skipserve.runtime.engine import Engine
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import Rows

ROUNDS = 7
# Rows that are timed in each round: as many as these seconds allow, within these limits.
SECONDS, FEWEST, MOST = 60.0, 32, 256
# Number of fixed depths that are timed.
FIXED_TIMED = 7

Call = Callable[[Rows], object]


@dataclass(frozen=True)
class Cost:
    """Milliseconds a row, medians of interleaved rounds.

    Attributes:
        batch_size: Rows that run together.
        full_ms: At full depth.
        fixed_ms: By blocks run, in the same files, thresholds fixed.
        cut_ms: By blocks, the network cut off there and exported alone.
        router_ms: By certified risk.
    """

    batch_size: int
    full_ms: float
    fixed_ms: Mapping[int, float]
    cut_ms: Mapping[int, float]
    router_ms: Mapping[float, float]


def measure_costs(
    model: Model,
    engine: Engine,
    rows: Rows,
    batch_sizes: Sequence[int],
    fixed: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
) -> list[Cost]:
    """Time full depth, fixed depths and the router in interleaved rounds.

    Args:
        model: Whose network is cut off and exported alone.
        engine: Of its artifact.
        rows: Some; the slower they are, the fewer of them are timed, the first ones.
        batch_sizes: Rows that run together; one measurement each.
        fixed: Fixed depths to be among those timed; the network is also cut off there and exported
            alone.
        say: Receives what is being done.
    """
    spec = engine.manifest.router
    work: dict[Any, Call] = {"full": engine.run}
    if spec is not None:
        asked = {at for at, blocks in enumerate(spec.decisions) if blocks in fixed}
        for at in sorted(asked | _spread(len(spec.decisions), FIXED_TIMED)):
            work["fixed", spec.decisions[at]] = _with(engine, engine.fixed(at))
        for risk in engine.certified():
            work["router", risk] = _with(engine, engine.setting(risk))
    if engine.provider == "cpu":
        for blocks in sorted(set(fixed)):
            if (piece := _cut_off(model, engine, blocks)) is not None:
                work["cut", blocks] = _alone(piece)
    costs = []
    for size in batch_sizes:
        say(f"measuring milliseconds, {'one row at a time' if size == 1 else f'{size} rows'}")
        costs.append(_cost(work, rows, size))
    return costs


def lone_times(engine: Engine, rows: Rows) -> tuple[float, float]:
    """Median seconds that a row takes alone at full depth, and of one decision on it.

    A decision is the cost of all exits, divided by them; 0 without a router.

    Args:
        engine: Of an artifact.
        rows: Some.
    """
    work: dict[Any, Call] = {"full": engine.run}
    if (spec := engine.manifest.router) is not None:
        # No signal reaches it, so that every row is read at every exit.
        careful = np.full_like(engine.off.thresholds, np.finfo(np.float32).max)
        work["read"] = _with(engine, Setting(careful, np.inf))
    times = _in_turns(work, _batches(work, rows, 1))
    if spec is None:
        return times["full"], 0.0
    return times["full"], max(times["read"] - times["full"], 0.0) / len(spec.exits)


def in_any_part(depth_run: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of rows [N] of which every beginning has shallow and deep ones as all have.

    Ranks by depth, visited in the order of van der Corput's sequence: 0, 1/2, 1/4, 3/4, …

    Args:
        depth_run: Blocks that each row runs [N].
    """
    ranked = np.argsort(depth_run, kind="stable")
    bits = max(1, int(len(ranked) - 1).bit_length())
    places = np.arange(2**bits)
    visited = np.zeros_like(places)
    for bit in range(bits):
        visited |= (places >> bit & 1) << (bits - 1 - bit)
    order: NDArray[np.int64] = ranked[visited[visited < len(ranked)]]
    return order


def _cost(work: Mapping[Any, Call], rows: Rows, batch_size: int) -> Cost:
    times = _in_turns(work, _batches(work, rows, batch_size))

    def of(kind: str) -> dict[Any, float]:
        return {key[1]: 1e3 * one for key, one in times.items() if key[0] == kind}

    return Cost(batch_size, 1e3 * times["full"], of("fixed"), of("cut"), of("router"))


def affordable(row_s: float, works: int) -> int:
    """Rows that are timed in each round, where every work takes as long as full depth.

    Args:
        row_s: Seconds of a row at full depth.
        works: How many works are timed.
    """
    most = SECONDS / (max(row_s, 1e-9) * works * (ROUNDS + 1))
    return int(min(MOST, max(FEWEST, most)))


def _batches(work: Mapping[Any, Call], rows: Rows, batch_size: int) -> list[Rows]:
    """The batches that are timed."""
    first = rows[:batch_size]
    work["full"](first)  # the first call warms up
    start = perf_counter()
    work["full"](first)
    count = affordable((perf_counter() - start) / len(first), len(work))
    calls = max(1, min(len(rows), count) // batch_size)
    return [rows[at * batch_size : (at + 1) * batch_size] for at in range(calls)]


def _with(engine: Engine, setting: Setting) -> Call:
    return lambda batch: engine.run_thresholds(batch, setting.thresholds, setting.guard_limit)


def _in_turns(work: Mapping[Any, Call], batches: Sequence[Rows]) -> dict[Any, float]:
    """Median seconds a row."""
    rows = sum(len(batch) for batch in batches)
    times: dict[Any, list[float]] = {key: [] for key in work}
    for turn in range(ROUNDS + 1):
        for key, call in work.items():
            start = perf_counter()
            for batch in batches:
                call(batch)
            if turn:  # the first one warms up
                times[key].append((perf_counter() - start) / rows)
    return {key: median(each) for key, each in times.items()}


def _cut_off(model: Model, engine: Engine, blocks: int) -> OnnxPiece | None:
    """The network up to a depth, exported alone; ``None`` where its files cannot say."""
    if model.checkpoint is None:
        assert model.artifact is not None
        return fixed_alone(model.artifact, engine.precision, blocks)
    network = model.checkpoint.network
    short = ResidualNetwork(
        network.config.model_copy(update={"depth": blocks}),
        stem=network.stem,
        blocks=list(network.blocks)[:blocks],
        pool=network.pool,
        head=network.head,
    )
    short.scaling = network.scaling
    graph = plain_graph(short)
    return OnnxPiece(open_model(to_fp16(graph) if engine.precision == "fp16" else graph))


def _alone(piece: OnnxPiece) -> Call:
    return lambda batch: piece.run(batch.tensors)


def _spread(count: int, most: int) -> set[int]:
    return {round(place) for place in np.linspace(0, count - 1, min(count, most))}
