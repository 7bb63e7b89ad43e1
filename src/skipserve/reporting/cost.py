"""What a row costs in milliseconds: the open file, in turns, at full, fixed and routed depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.formats import write_model
from skipserve.networks import ResidualNetwork
from skipserve.reporting.readings import fixed_setting
from skipserve.runtime.backends import Backend, open_backend
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting

ROUNDS = 7
# Rows that are timed in each round.
ROWS = 256
# Fixed depths that are timed; more would tell nothing more.
FIXED_TIMED = 7

Call = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True)
class Cost:
    """Milliseconds a row, medians of interleaved rounds.

    Attributes:
        batch_size: Rows that run together.
        full_ms: At full depth.
        fixed_ms: By blocks run, in the same file, thresholds fixed.
        cut_ms: By blocks, the network cut there and exported alone.
        router_ms: By certified risk.
    """

    batch_size: int
    full_ms: float
    fixed_ms: Mapping[int, float]
    cut_ms: Mapping[int, float]
    router_ms: Mapping[float, float]


def measure_costs(
    engine: Engine,
    network: ResidualNetwork | None,
    rows: NDArray[np.float32],
    batch_sizes: Sequence[int],
    fixed: Sequence[int],
) -> list[Cost]:
    """Time full depth, fixed depths and the router on the open file, in turns.

    Args:
        engine: Of the artifact.
        network: Its network, to cut and export alone, or ``None``.
        rows: [N, *inputs].
        batch_sizes: Rows that run together; one measurement each.
        fixed: Fixed depths to be among those timed; the network is also cut there and exported
            alone.
    """
    spec = engine.manifest.router
    work: dict[Any, Call] = {"full": engine.run}
    if spec is not None:
        asked = {at for at, blocks in enumerate(spec.decisions) if blocks in fixed}
        for at in sorted(asked | _spread(len(spec.decisions), FIXED_TIMED)):
            work["fixed", spec.decisions[at]] = _with(engine, fixed_setting(engine, at))
        for risk in engine.certified():
            work["router", risk] = _with(engine, engine.setting(risk))
    with TemporaryDirectory() as scratch:
        if network is not None:
            for blocks in sorted(set(fixed)):
                work["cut", blocks] = _alone(_cut(network, blocks, Path(scratch), engine))
        return [_cost(work, rows, size) for size in batch_sizes]


def full_depth_s(engine: Engine, rows: NDArray[np.float32]) -> float:
    """Median seconds that a row [*inputs] takes alone at full depth."""
    return _in_turns({"full": engine.run}, _batches(rows, 1))["full"]


def _cost(work: Mapping[Any, Call], rows: NDArray[np.float32], batch_size: int) -> Cost:
    times = _in_turns(work, _batches(rows, batch_size))

    def of(kind: str) -> dict[Any, float]:
        return {key[1]: 1e3 * one for key, one in times.items() if key[0] == kind}

    return Cost(batch_size, 1e3 * times["full"], of("fixed"), of("cut"), of("router"))


def _batches(rows: NDArray[np.float32], batch_size: int) -> list[NDArray[np.float32]]:
    calls = max(1, min(len(rows), ROWS) // batch_size)
    return [np.ascontiguousarray(rows[at * batch_size :][:batch_size]) for at in range(calls)]


def _with(engine: Engine, setting: Setting) -> Call:
    return lambda batch: engine.run_thresholds(batch, setting.thresholds, setting.guard_limit)


def _alone(backend: Backend) -> Call:
    return lambda batch: backend.run({"inputs": batch})


def _in_turns(work: Mapping[Any, Call], batches: Sequence[NDArray[np.float32]]) -> dict[Any, float]:
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


def _cut(network: ResidualNetwork, blocks: int, scratch: Path, engine: Engine) -> Backend:
    short = ResidualNetwork(
        network.config.model_copy(update={"depth": blocks}),
        stem=network.stem,
        blocks=list(network.blocks)[:blocks],
        pool=network.pool,
        head=network.head,
    )
    short.scaling = network.scaling
    short.eval()
    onnx = engine.backend == "onnxruntime"
    file = scratch / f"cut{blocks}.{'onnx' if onnx else 'pt'}"
    write_model(short, "onnx" if onnx else "torchscript", engine.precision, file)
    return open_backend(file, ("probabilities",), engine.provider)


def _spread(count: int, most: int) -> set[int]:
    return {round(place) for place in np.linspace(0, count - 1, min(count, most))}
