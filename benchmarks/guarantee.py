"""Does the guarantee hold? The candidates of a model certified again and again on known rows.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model). The population is all rows
that neither training nor proposing has touched, so the true risk of every candidate of the files
that serve is known. A thousand times, --samples of them are drawn with replacement and certified as
`skipserve calibrate` does it, guard on; counted is how often the true risk of what passed exceeds
ε. At most δ = 5 % of the times it may. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import from_json
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.certification.certify import Goal, Outcome, certify, lost_of
from skipserve.intervals import rate
from skipserve.routing.propose import Thresholds
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting

ROOT = Path(__file__).parent.parent
CONFIDENCE, BATCH = 0.95, 256
GOALS = [Goal(0.01), Goal(0.02), Goal(0.01, "accuracy_lost")]


class Population:
    """What each candidate of a router does to every row, known in advance.

    Attributes:
        candidates: From careful to bold.
        blocks: Run by a candidate on a row [candidates, N].
        disagrees: [candidates, N].
        lost: As in an outcome [candidates, N], int8.
    """

    def __init__(self, build: BuildFile) -> None:
        artifact = open_artifact(build.artifact)
        engine, spec = Engine(artifact, provider="cpu", threads=0), artifact.manifest.router
        assert spec is not None
        self.depth = artifact.manifest.depth
        self.candidates: list[Thresholds] = [
            np.array([from_json(one) for one in candidate], np.float32)
            for candidate in artifact.certificates.candidates
        ]
        draws = [build.trained.recipe.draw(split) for split in ("certify", "test")]
        rows = engine.check(np.concatenate([one.inputs.numpy() for one in draws]))
        truth = np.concatenate([one.labels.numpy() for one in draws])
        full = engine.run_batches(rows, engine.off, BATCH).labels
        limit = from_json(spec.guard_limit)
        ran = [engine.run_batches(rows, Setting(one, limit), BATCH) for one in self.candidates]
        self.blocks = np.stack([answers.depth_run for answers in ran])
        self.disagrees = np.stack([answers.labels != full for answers in ran])
        self.lost = np.stack([lost_of(full == truth, answers.labels == truth) for answers in ran])

    def risk(self, goal: Goal, candidate: int) -> float:
        """The true one."""
        of = self.disagrees if goal.measure == "disagreement" else self.lost
        return float(of[candidate].mean())

    def certify(self, drawn: NDArray[np.int64]) -> list[int | None]:
        """The candidate that passes for each goal on the rows of these places."""
        places = iter(range(len(self.candidates)))

        def run(_: Thresholds) -> Outcome:  # asked for in order
            place = next(places)
            return Outcome(
                disagreements=int(self.disagrees[place, drawn].sum()),
                run_rate=float(self.blocks[place, drawn].mean() / self.depth),
                held_back=0.0,
                lost=self.lost[place, drawn],
            )

        verdicts, _ = certify(run, self.candidates, len(drawn), GOALS, CONFIDENCE)
        return [verdict.candidate for verdict in verdicts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=5_000, help="to certify on, each time")
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    population = Population(build)
    rng = np.random.default_rng(0)
    drawn = (
        rng.integers(population.blocks.shape[1], size=options.samples)
        for _ in range(options.splits)
    )
    error = Console(stderr=True)
    passed = [
        population.certify(places)
        for places in track(drawn, "certifying", options.splits, console=error)
    ]
    rows: list[dict[str, Any]] = []
    print("| risk | ε | exceeded, of all splits | 95 % interval | bounds | blocks run |")
    print("|---|---|---|---|---|---|")
    for place, goal in enumerate(GOALS):
        row = {"risk": goal.risk, "measure": goal.measure}
        row |= summary(population, goal, [each[place] for each in passed])
        rows.append(row)
        print(
            "| {measure} | {risk:.0%} | {exceeded} of {splits} | "
            "{low:.1%} – {high:.1%} | {bounds} | {blocks:.1%} |".format(**row),
            flush=True,
        )
    asked = {"model": options.model, "samples": options.samples}
    print(json.dumps({"benchmark": "guarantee", **asked, "rows": rows}))


def summary(population: Population, goal: Goal, passed: list[int | None]) -> dict[str, Any]:
    exceeded = sum(one is not None and population.risk(goal, one) > goal.risk for one in passed)
    interval = rate(exceeded, len(passed), CONFIDENCE)
    ran = [
        1.0 if one is None else population.blocks[one].mean() / population.depth for one in passed
    ]
    over = [population.risk(goal, i) > goal.risk for i in range(len(population.candidates))]
    return {
        "exceeded": exceeded,
        "splits": len(passed),
        "low": interval.low,
        "high": interval.high,
        # Nothing is tested where every candidate is harmless.
        "bounds": f"{sum(over)} of {len(over)} candidates above ε",
        "blocks": float(np.median(ran)),
    }


if __name__ == "__main__":
    main()
