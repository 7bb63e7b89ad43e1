"""Does the guarantee hold? Each signal certified again and again on samples of a known population.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model). The population is all rows
that neither training nor proposing has touched, so the true risk of every candidate is known. A
thousand times, --samples of them are drawn with replacement and certified as `skipserve calibrate`
does it, guard on; counted is how often the true risk of what passed exceeds ε. At most δ = 5 % of
the times it may. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from skipserve.buildfile import BuildFile, read_build_file
from skipserve.networks import ResidualNetwork
from skipserve.routing import study
from skipserve.routing.certify import Goal, Outcome, certify
from skipserve.routing.config import ExitHeads, RouterConfig, SignalName
from skipserve.routing.fit import fit_router
from skipserve.routing.propose import Thresholds, propose
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import Samples

ROOT = Path(__file__).parent.parent
CONFIDENCE = 0.95
GOALS = [Goal(0.01), Goal(0.02), Goal(0.01, "accuracy_lost")]


class Population:
    """What each candidate of a router does to every row, known in advance.

    Attributes:
        candidates: From careful to bold.
        blocks: Run by a candidate on a row [candidates, N].
        disagrees: [candidates, N].
        lost: As in an outcome [candidates, N], int8.
    """

    def __init__(
        self, build: BuildFile, network: ResidualNetwork, signal: SignalName, exit_heads: ExitHeads
    ) -> None:
        config = RouterConfig(signal=signal, exit_heads=exit_heads, guard=build.router.guard)
        proposing = build.recipe.draw("propose").inputs
        self.depth = network.config.depth
        router, limit = fit_router(
            config, network, range(1, self.depth), build.recipe.draw("train").inputs, proposing
        )
        self.candidates = propose(network, router, proposing, limit)
        rows = untouched(build)
        reading = study.read(network, router.guard, rows.inputs, rows.labels)
        if router.heads:
            reading = reading.by_heads(router.heads)
        values, held = reading.signal(router.signals), ~(reading.distance <= limit)
        depths = [study.depth_run(one, values, held) for one in self.candidates]
        self.blocks = np.stack(depths)
        answers = np.stack([reading.answers[np.arange(len(rows)), d - 1] for d in depths])
        full, truth = reading.answers[:, -1], reading.labels
        self.disagrees = answers != full
        self.lost = (full == truth).astype(np.int8) - (answers == truth).astype(np.int8)

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


def untouched(build: BuildFile) -> Samples:
    draws = [build.recipe.draw(split) for split in ("certify", "test")]
    return Samples(
        torch.cat([samples.inputs for samples in draws]),
        torch.cat([samples.labels for samples in draws]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=5_000, help="to certify on, each time")
    parser.add_argument("--exit-heads", choices=get_args(ExitHeads), help="the model's own")
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    exit_heads = options.exit_heads or build.router.exit_heads
    network = load_checkpoint(build.checkpoint).network
    rows: list[dict[str, Any]] = []
    print("| signal | risk | ε | exceeded, of all splits | 95 % interval | bounds | blocks run |")
    print("|---|---|---|---|---|---|---|")
    for signal in get_args(SignalName):
        population = Population(build, network, signal, exit_heads)
        rng = np.random.default_rng(0)
        drawn = (
            rng.integers(population.blocks.shape[1], size=options.samples)
            for _ in range(options.splits)
        )
        error = Console(stderr=True)
        passed = [
            population.certify(places)
            for places in track(drawn, signal, options.splits, console=error)
        ]
        for place, goal in enumerate(GOALS):
            row = {"signal": signal, "risk": goal.risk, "measure": goal.measure}
            row |= summary(population, goal, [each[place] for each in passed])
            rows.append(row)
            print(
                "| {signal} | {measure} | {risk:.0%} | {exceeded} of {splits} | "
                "{low:.1%} – {high:.1%} | {bounds} | {blocks:.1%} |".format(**row),
                flush=True,
            )
    asked = {"exit_heads": exit_heads, "samples": options.samples}
    print(json.dumps({"benchmark": "guarantee", **asked, "rows": rows}))


def summary(population: Population, goal: Goal, passed: list[int | None]) -> dict[str, Any]:
    exceeded = sum(one is not None and population.risk(goal, one) > goal.risk for one in passed)
    interval = binomtest(exceeded, len(passed)).proportion_ci(CONFIDENCE, method="exact")
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
