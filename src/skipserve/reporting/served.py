"""The artifact as it serves: what its certificates promise, what it does on rows, what it costs."""

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

from skipserve.artifacts.certificates import Certificate, Refusal
from skipserve.artifacts.formats import write_model
from skipserve.networks import ResidualNetwork
from skipserve.reporting.rate import Rate, rate
from skipserve.reporting.readings import Readings, fixed_thresholds
from skipserve.reporting.sample import Sample
from skipserve.routing.certify import p_value
from skipserve.runtime.backends import Backend, open_backend
from skipserve.runtime.engine import Engine, Prediction, Setting

ROUNDS = 7
# Calls that are timed in each round: enough that one takes tens of milliseconds.
CALLS = 64
# Fixed depths that are timed; more would tell nothing more.
FIXED_TIMED = 7


@dataclass(frozen=True)
class Point:
    """A certified risk, as it was tested and as it went on this report's rows.

    Attributes:
        certificate: As it stands in the artifact.
        tested: Its disagreements with their exact interval.
        seen: Disagreements on this report's rows.
        run_rate: Share of the blocks run on them.
        accuracy: On them, or ``None`` without labels.
    """

    certificate: Certificate
    tested: Rate
    seen: Rate
    run_rate: float
    accuracy: float | None


@dataclass(frozen=True)
class Routed:
    """What the router did to each row at one risk.

    Attributes:
        risk: ε.
        depth_run: Blocks run [N], int64.
        held_back: Sent to full depth by the guard [N], bool.
        confidence: Largest probability of the answer [N], float32.
        all_rows: Disagreement among all rows.
        skipped: Disagreement among the rows that left something out.
        by_class: Disagreement by the answer of full depth, largest rate first.
    """

    risk: float
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    all_rows: Rate
    skipped: Rate
    by_class: tuple[tuple[int, Rate], ...]


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


def run(engine: Engine, rows: NDArray[np.float32], setting: Setting, batch_size: int) -> Prediction:
    """Answer rows [N, *inputs] in batches."""
    parts = [
        engine.run_thresholds(rows[i : i + batch_size], setting.thresholds, setting.guard_limit)
        for i in range(0, len(rows), batch_size)
    ]
    return Prediction(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("labels", "probabilities", "depth_run", "held_back")
        )
    )


def certified_points(
    engine: Engine, sample: Sample, full: NDArray[np.int64], batch_size: int
) -> list[Point]:
    """Every certificate that holds for the open file, run on the sample.

    Args:
        engine: Of an artifact with a router.
        sample: Rows that the certificates were not made on.
        full: Their answers at full depth [N].
        batch_size: Rows that run together.
    """
    points = []
    for risk, certificate in sorted(engine.certified.items()):
        answers = run(engine, sample.inputs, engine.setting(risk), batch_size)
        right = None if sample.labels is None else float((answers.labels == sample.labels).mean())
        points.append(
            Point(
                certificate,
                rate(certificate.disagreements, certificate.samples),
                rate(int((answers.labels != full).sum()), len(full)),
                float(answers.depth_run.mean() / engine.manifest.depth),
                right,
            )
        )
    return points


def routed_at(
    engine: Engine, sample: Sample, full: NDArray[np.int64], risk: float, batch_size: int
) -> Routed:
    """Run the sample at one certified risk, and count by class and among the skipped."""
    answers = run(engine, sample.inputs, engine.setting(risk), batch_size)
    differs = answers.labels != full
    left_out = answers.depth_run < engine.manifest.depth
    classes = [(int(one), full == one) for one in np.unique(full)]
    by_class = [(one, rate(int(differs[rows].sum()), int(rows.sum()))) for one, rows in classes]
    return Routed(
        risk=risk,
        depth_run=answers.depth_run,
        held_back=answers.held_back,
        confidence=answers.probabilities.max(axis=1),
        all_rows=rate(int(differs.sum()), len(full)),
        skipped=rate(int(differs[left_out].sum()), int(left_out.sum())),
        by_class=tuple(sorted(by_class, key=lambda one: (-one[1].value, one[0]))),
    )


def shortest_fixed(readings: Readings, risk: float, confidence: float) -> int:
    """Fewest blocks that can be certified if every row runs as many.

    Depths are tested like a router's candidates: in a fixed order, from careful to bold, by the
    same test. Full depth always holds.

    Args:
        readings: Answers by depth on rows that nothing else has touched.
        risk: ε.
        confidence: 1 − δ.
    """
    shortest = int(readings.blocks[-1])
    for blocks, agrees in zip(readings.blocks[-2::-1], readings.agrees.T[-2::-1], strict=True):
        if p_value(int((~agrees).sum()), len(agrees), risk) > 1 - confidence:
            break
        shortest = int(blocks)
    return shortest


def refusals(engine: Engine, all_refusals: Sequence[Refusal]) -> list[Refusal]:
    """What was tested about the open file and not certified."""
    key = (engine.file_sha256, engine.provider)
    return [one for one in all_refusals if (one.file_sha256, one.provider) == key]


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
