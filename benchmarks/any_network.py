"""What routing a network that was brought gains, and what it does off the data.

    python benchmarks/fashion.py --out .build/fashion      # once: data and network
    skipserve bring .build/fashion/fashion.onnx --data .build/fashion/fashion.npz \\
        --fit .build/fashion/fashion-fit.npz --labels label
    python benchmarks/any_network.py artifacts/fashion \\
        --test .build/fashion/fashion-test.npz --labels label

Prints a table a question and ends with one JSON line. Times are medians of interleaved rounds, one
thread.
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
from skipserve.routing import corruption
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.sources.data import match, read_columns

BATCH = 256
STRESSED = 4_000
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--test", type=Path, required=True, help="rows that nothing has touched")
    parser.add_argument("--labels", default=None)
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    artifact = open_artifact(asked.artifact)
    engine = Engine(artifact, provider="cpu", precision=asked.precision)
    signature = engine.manifest.signature
    test = match(read_columns(asked.test), signature, {}, asked.labels, str(asked.test))
    full = engine.run_batches(test.rows, engine.off, BATCH)
    found = {
        "model": engine.manifest.name,
        "precision": engine.precision,
        "risks": risks(engine, test.rows, test.labels, full),
        "stress": stress(engine, test.rows),
        "ms": times(engine, test.rows),
    }
    print(json.dumps(found))


def risks(engine: Engine, rows: Rows, labels: np.ndarray | None, full: Prediction) -> list[dict]:
    """Every certified risk on rows that nothing has touched."""
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
    mask = engine.manifest.signature.mask
    hard, mild = corruption.kinds(rows, mask)
    known = corruption.about(rows, mask)
    some, random = rows[:STRESSED], np.random.default_rng(7)
    print(f"\n| corruption, at ε = {risk:.0%} | disagrees | blocks run | held back |")
    print("|---|---|---|---|")
    found = []
    for kind, corrupt in {**hard, **mild}.items():
        copy = corruption.corrupt(some, corrupt, known, mask, random)
        truth = engine.run_batches(copy, engine.off, BATCH).labels
        answers = engine.run_batches(copy, setting, BATCH)
        one = {
            "kind": kind,
            "hard": kind in hard,
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


def times(engine: Engine, rows: Rows, risk: float = 0.01) -> list[dict]:
    """Milliseconds a row at full depth, through the stages to the end, and routed."""
    never = Setting(np.full_like(engine.off.thresholds, np.finfo(np.float32).max), np.inf)
    ways = {"full": engine.off, "stages to the end": never, "router": engine.setting(risk)}
    print("\n| batch | full depth | stages to the end, over it | router, over it |")
    print("|---|---|---|---|")
    found = []
    for size in (1, 8, 32):
        batches = [rows[i * size : (i + 1) * size] for i in range(max(4, 128 // size))]
        spent = in_turns(
            [lambda batch, way=way: run(engine, batch, way) for way in ways.values()], batches
        )
        ms = [1e3 * one / size for one in spent]
        found.append({"batch": size, **dict(zip(ways, ms, strict=True))})
        print(f"| {size} | {ms[0]:.3f} ms | {ms[1] / ms[0]:.2f} | {ms[2] / ms[0]:.2f} |")
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
