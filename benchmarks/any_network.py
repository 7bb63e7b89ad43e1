"""What routing a network that was brought gains, and what it does off the data.

    python benchmarks/fashion.py --out .build/fashion      # once: data and network
    skipserve bring .build/fashion/fashion.onnx --data .build/fashion/fashion.npz \\
        --fit .build/fashion/fashion-fit.npz --labels label
    python benchmarks/any_network.py artifacts/fashion \\
        --test .build/fashion/fashion-test.npz --labels label

With `--against ARTIFACT` times and answers are held against the full depth of another one too: the
same network in FP32, say, beside INT8. Prints a table a question and ends with one JSON line. Times
are medians of interleaved rounds, one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from skipserve.artifacts.artifact import open_artifact
from skipserve.routing.corruptible import Corruptible
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match

BATCH = 32
STRESSED = 4_000
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--test", type=Path, required=True, help="rows that nothing has touched")
    parser.add_argument("--labels", default=None)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--against", type=Path, help="artifact whose full depth is timed beside it")
    parser.add_argument("--only", choices=["risks", "stress", "ms"], help="one of the tables")
    asked = parser.parse_args()
    artifact = open_artifact(asked.artifact)
    engine = Engine.for_many(artifact, provider="cpu", precision=asked.precision)
    other = None
    if asked.against is not None:
        other = Engine.for_many(open_artifact(asked.against), provider="cpu")
    signature = engine.manifest.signature
    test = match(read_columns(asked.test), signature, {}, asked.labels, str(asked.test))
    found: dict[str, object] = {"model": engine.manifest.name, "precision": engine.precision}
    if asked.only in (None, "risks"):
        found["risks"] = risks(engine, test.rows, test.labels, other)
    if asked.only in (None, "stress"):
        found["stress"] = stress(engine, test.rows)
    if asked.only in (None, "ms"):
        found["ms"] = times(engine, test.rows, other)
    print(json.dumps(found))


def risks(
    engine: Engine, rows: Rows, labels: np.ndarray | None, other: Engine | None
) -> list[dict]:
    """Every certified risk on rows that nothing has touched."""
    full = engine.run_batches(rows, engine.off, BATCH)
    if other is not None:
        theirs = other.run_batches(rows, other.off, BATCH)
        differs = float((theirs.labels != full.labels).mean())
        print(f"\nfull depth {right(full, labels)} right, {other.manifest.name} at full depth ")
        print(f"{right(theirs, labels)}; they differ on {differs:.2%} of the rows")
    print(
        f"\n| certified ε | blocks run | disagrees | held back | right "
        f"(full depth {right(full, labels)}) |"
    )
    print("|---|---|---|---|---|")
    found = []
    for risk in sorted(engine.certified()):
        answers = engine.run_batches(rows, engine.setting(risk), BATCH)
        one = {
            "risk": risk,
            "run_rate": float(answers.depth_run.mean()) / engine.manifest.depth,
            "disagreement": float((answers.labels != full.labels).mean()),
            "held_back": float(answers.held_back.mean()),
            "right": right(answers, labels),
        }
        found.append(one)
        print(
            f"| {risk:.1%} | {one['run_rate']:.1%} | {one['disagreement']:.2%} | "
            f"{one['held_back']:.2%} | {one['right']} |"
        )
    return found


def right(answers: Prediction, labels: np.ndarray | None) -> str:
    return "–" if labels is None else f"{(answers.labels == labels).mean():.2%}"


def stress(engine: Engine, rows: Rows, risk: float = 0.01) -> list[dict]:
    """Disagreement, blocks run and rows held back on corrupted copies, at one certified risk."""
    setting = engine.setting(risk)
    corruptible = Corruptible.of(rows, engine.manifest.signature)
    some, random = rows[:STRESSED], np.random.default_rng(7)
    print(f"\n| corruption, at ε = {risk:.0%} | disagrees | blocks run | held back |")
    print("|---|---|---|---|")
    found = []
    for kind, corrupt in {**corruptible.hard, **corruptible.mild}.items():
        copy = corruptible.copy(some, corrupt, random)
        truth = engine.run_batches(copy, engine.off, BATCH).labels
        answers = engine.run_batches(copy, setting, BATCH)
        one = {
            "kind": kind,
            "hard": kind in corruptible.hard,
            "disagreement": float((answers.labels != truth).mean()),
            "run_rate": float(answers.depth_run.mean()) / engine.manifest.depth,
            "held_back": float(answers.held_back.mean()),
        }
        found.append(one)
        print(
            f"| {kind} | {one['disagreement']:.1%} | {one['run_rate']:.0%} | "
            f"{one['held_back']:.0%} |"
        )
    return found


def times(
    engine: Engine, rows: Rows, other: Engine | None = None, risk: float = 0.01
) -> list[dict]:
    """Milliseconds a row at full depth, through the stages to the end, and routed."""
    never = Setting(np.full_like(engine.off.thresholds, np.finfo(np.float32).max), np.inf)
    ways = {"full": engine.off, "stages to the end": never, "router": engine.setting(risk)}
    ours: dict[str, Engine] = dict.fromkeys(ways, engine)
    if other is not None:
        ways, ours = {"against": other.off, **ways}, {"against": other, **ours}
    base = next(iter(ways))
    print(f"\nover {ours[base].manifest.name} at full depth")
    print(f"| batch | {base} | {' | '.join(list(ways)[1:])} |\n|---|{'---|' * len(ways)}")
    found = []
    for size in (1, 8, 32):
        batches = [rows[i * size : (i + 1) * size] for i in range(max(4, 128 // size))]
        spent = in_turns(
            [lambda batch, name=name: run(ours[name], batch, ways[name]) for name in ways], batches
        )
        ms = [1e3 * one / size for one in spent]
        found.append({"batch": size, **dict(zip(ways, ms, strict=True))})
        over = " | ".join(f"{one / ms[0]:.2f}" for one in ms[1:])
        print(f"| {size} | {ms[0]:.3f} ms | {over} |", flush=True)
    return found


def run(engine: Engine, rows: Rows, setting: Setting) -> Prediction:
    return engine.run_thresholds(rows, setting.thresholds, setting.guard_limit)


def in_turns(calls: list[Callable[[Rows], object]], batches: list[Rows]) -> list[float]:
    """Median seconds of a batch."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS + 1):
        for spent, call in zip(times, calls, strict=True):
            start = perf_counter()
            for batch in batches:
                call(batch)
            if turn:
                spent.append((perf_counter() - start) / len(batches))
    return [median(spent) for spent in times]


if __name__ == "__main__":
    main()
