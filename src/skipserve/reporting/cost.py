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
from torch import nn

from skipserve.artifacts.formats import write_model
from skipserve.networks import ResidualNetwork
from skipserve.reporting.readings import fixed_thresholds
from skipserve.runtime.backends import Backend, open_backend
from skipserve.runtime.engine import Engine, Setting

ROUNDS = 7
# Calls that are timed in each round: enough that one takes tens of milliseconds.
CALLS = 64
# Fixed depths that are timed; more would tell nothing more.
FIXED_TIMED = 7


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


def measure_cost(
    engine: Engine,
    network: ResidualNetwork | None,
    rows: NDArray[np.float32],
    batch_size: int,
    fixed: Sequence[int],
) -> Cost:
    """Time full depth, fixed depths and the router on the open file, in turns.

    Args:
        engine: Of the artifact.
        network: Its network, to cut and export alone, or ``None``.
        rows: [N, *inputs].
        batch_size: Rows that run together.
        fixed: Fixed depths to be among those timed; the network is also cut there and exported
            alone.
    """
    count = max(len(rows) // batch_size, 1)
    starts = [at * batch_size for at in range(min(CALLS, count))]
    batches = [np.ascontiguousarray(rows[start : start + batch_size]) for start in starts]
    spec = engine.manifest.router
    work: dict[Any, Callable[[NDArray[np.float32]], object]] = {"full": engine.run}
    if spec is not None:
        asked = {at for at, blocks in enumerate(spec.decisions) if blocks in fixed}
        for at in sorted(asked | _spread(len(spec.decisions), FIXED_TIMED)):
            still = fixed_thresholds(engine, at)
            work["fixed", spec.decisions[at]] = _with(engine, Setting(still, np.inf))
        for risk in engine.certified:
            work["router", risk] = _with(engine, engine.setting(risk))
    with TemporaryDirectory() as scratch:
        for blocks in sorted(set(fixed)) if network is not None else []:
            assert network is not None
            cut = _cut(network, blocks, Path(scratch), engine)
            work["cut", blocks] = _alone(cut)
        ms = {
            key: 1e3 * seconds / sum(len(batch) for batch in batches)
            for key, seconds in _in_turns(work, batches).items()
        }
    return Cost(
        batch_size=batch_size,
        full_ms=ms["full"],
        fixed_ms={key[1]: one for key, one in ms.items() if key[0] == "fixed"},
        cut_ms={key[1]: one for key, one in ms.items() if key[0] == "cut"},
        router_ms={key[1]: one for key, one in ms.items() if key[0] == "router"},
    )


def _with(engine: Engine, setting: Setting) -> Callable[[NDArray[np.float32]], object]:
    return lambda batch: engine.run_thresholds(batch, setting.thresholds, setting.guard_limit)


def _alone(backend: Backend) -> Callable[[NDArray[np.float32]], object]:
    return lambda batch: backend.run({"inputs": batch})


def _in_turns(
    work: Mapping[Any, Callable[[NDArray[np.float32]], object]],
    batches: Sequence[NDArray[np.float32]],
) -> dict[Any, float]:
    times: dict[Any, list[float]] = {key: [] for key in work}
    for turn in range(ROUNDS + 1):
        for key, call in work.items():
            start = perf_counter()
            for batch in batches:
                call(batch)
            if turn:  # the first one warms up
                times[key].append(perf_counter() - start)
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
    nn.Module.eval(short)
    onnx = engine.backend == "onnxruntime"
    file = scratch / f"cut{blocks}.{'onnx' if onnx else 'pt'}"
    write_model(short, "onnx" if onnx else "torchscript", engine.precision, file)
    return open_backend(file, ("probabilities",), engine.provider)


def _spread(count: int, most: int) -> set[int]:
    return {round(place) for place in np.linspace(0, count - 1, min(count, most))}
