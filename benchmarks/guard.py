"""What the guard keeps: a certified file on inputs unlike those it was certified on.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model, of the same recipe). 2,000
test rows each, thresholds certified at ε = 1 %. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from study_cells import FAMILIAR, strange_signals

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.runtime.engine import Engine
from skipserve.training.recipes import Samples

ROOT = Path(__file__).parent.parent
RISK, ROWS, BATCH = 0.01, 2_000, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    engine = Engine(open_artifact(build.artifact), provider="cpu")
    drawn = build.trained.recipe.draw("test")
    on = engine.setting(RISK)
    settings = {"off": replace(on, guard_limit=np.inf), "on": on}
    rows = []
    print("| inputs | no guard: disagrees, blocks run | guard: the same | held back |")
    print("|---|---|---|---|")
    for name, samples in conditions(Samples(drawn.inputs[:ROWS], drawn.labels[:ROWS])):
        inputs = engine.check(samples.inputs.numpy())
        full = engine.run_batches(inputs, engine.off, BATCH).labels
        row = {"inputs": name}
        for guard, setting in settings.items():
            answers = engine.run_batches(inputs, setting, BATCH)
            row |= {
                f"disagrees_{guard}": float((answers.labels != full).mean()),
                f"run_rate_{guard}": float(answers.depth_run.mean() / engine.manifest.depth),
                "held_back": float(answers.held_back.mean()),
            }
        rows.append(row)
        print(
            "| {inputs} | {disagrees_off:.1%}, {run_rate_off:.0%} | "
            "{disagrees_on:.1%}, {run_rate_on:.0%} | {held_back:.0%} |".format(**row),
            flush=True,
        )
    print(json.dumps({"benchmark": "guard", "model": options.model, "rows": rows}))


def conditions(test: Samples) -> Iterator[tuple[str, Samples]]:
    """The test rows, and the same moved off what was trained on."""
    rng = torch.Generator().manual_seed(0)
    yield FAMILIAR, test
    yield from strange_signals(test, rng)
    shuffled = test.inputs[:, torch.randperm(test.inputs.shape[1], generator=rng)]
    yield "shuffled", Samples(shuffled, test.labels)
    signs = torch.randint(0, 2, (len(test), 1), generator=rng) * 2 - 1
    noise = torch.randn(test.inputs.shape, generator=rng) * test.inputs.std() / 2
    yield "random sign + noise 0.5", Samples(signs * test.inputs + noise, test.labels)


if __name__ == "__main__":
    main()
