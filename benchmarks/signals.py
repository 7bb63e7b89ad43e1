"""How few blocks each signal runs at a certified risk, beside what needs no signal.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model). Eager, no guard, a decision
after every block: thresholds proposed on one split, certified at ε = 1 % on the next by the test of
`skipserve calibrate`, judged on a third. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.buildfile import BuildFile, read_build_file
from skipserve.networks import ResidualNetwork
from skipserve.routing.certify import Goal, Outcome, certify
from skipserve.routing.config import RouterConfig, SignalName
from skipserve.routing.fit import fit_router, pooled_streams
from skipserve.routing.judge import Readings, oracle, shortest_fixed
from skipserve.routing.propose import BOLD, CAREFUL, Thresholds, greedy, simulate
from skipserve.routing.routed import Router
from skipserve.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
RISK, CONFIDENCE, CANDIDATES = 0.01, 0.95, 60
CONTENDERS = [{"signal": name} for name in get_args(SignalName)] + [
    {"signal": "confidence", "exit_heads": "distilled"}
]

Seen = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Rows:
    """One split: its pooled streams [N, depth, width] and the head's answers there [N, depth]."""

    def __init__(self, network: ResidualNetwork, inputs: Tensor) -> None:
        self.pooled = pooled_streams(network, inputs)
        with torch.no_grad():
            answers = network.head(self.pooled).argmax(dim=2).numpy()
        self.readings = Readings(np.arange(1, network.config.depth + 1), answers)

    @torch.no_grad()
    def seen(self, router: Router) -> Seen:
        """Signals, and whether a row that leaves is answered as at full depth, by decision."""
        at = [self.pooled[:, blocks - 1] for blocks in router.decisions]
        signals = [signal(one) for signal, one in zip(router.signals, at, strict=True)]
        agrees = self.readings.agrees[:, :-1]
        if router.heads:
            own = [head(one).argmax(dim=1) for head, one in zip(router.heads, at, strict=True)]
            agrees = torch.stack(own, dim=1).numpy() == self.readings.labels[:, -1:]
        return torch.stack(signals, dim=1).numpy(), agrees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    rows = table(build)
    print(f"| what decides | blocks run at ε = {RISK:.0%} | disagrees on test |\n|---|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['run_rate']:.1%} | {row['disagrees']:.2%} |")
    print(json.dumps({"benchmark": "signals", "model": options.model, "rows": rows}))


def table(build: BuildFile) -> list[dict[str, Any]]:
    network = load_checkpoint(build.checkpoint).network
    depth = network.config.depth
    train, proposing = (build.recipe.draw(split).inputs for split in ("train", "propose"))
    splits = {
        split: Rows(network, build.recipe.draw(split).inputs)
        for split in ("propose", "certify", "test")
    }
    rows = []
    for options in CONTENDERS:
        config = RouterConfig.model_validate(options)
        router, _ = fit_router(config, network, range(1, depth), train, proposing)
        seen = {split: each.seen(router) for split, each in splits.items()}
        own = ", heads of its own" if router.heads else ""
        rows.append({"what": config.signal + own} | judged(seen, depth))
    return rows + baselines(splits, min(row["run_rate"] for row in rows))


def judged(seen: dict[str, Seen], depth: int) -> dict[str, float]:
    """Of the boldest candidate that is certified; full depth if there is none."""
    depths = np.arange(1, depth + 1)
    count = len(seen["certify"][0])

    def run(thresholds: Thresholds) -> Outcome:
        wrong, ran = simulate(thresholds, *seen["certify"], depths)
        return Outcome(round(wrong * count), ran / depth, 0.0)

    rates = np.geomspace(CAREFUL, BOLD, CANDIDATES)
    candidates = [greedy(*seen["propose"], rate) for rate in rates]
    (verdict,), _ = certify(run, candidates, count, [Goal(RISK)], CONFIDENCE)
    if verdict.candidate is None:
        return {"run_rate": 1.0, "disagrees": 0.0}
    wrong, ran = simulate(candidates[verdict.candidate], *seen["test"], depths)
    return {"run_rate": ran / depth, "disagrees": wrong}


def baselines(splits: dict[str, Rows], best: float) -> list[dict[str, Any]]:
    test = splits["test"].readings
    depth = len(test.blocks)
    fixed = shortest_fixed(splits["certify"].readings, RISK, CONFIDENCE)
    differs = 1 - test.agrees.mean(axis=0)
    # Random exits with the same mean depth: a mixture of the two depths around it.
    low = int(best * depth)
    share = best * depth - low
    mixed = (1 - share) * differs[low - 1] + share * differs[low]
    at_best = oracle(test, None, 0.0)
    return [
        {
            "what": "shortest fixed depth",
            "run_rate": fixed / depth,
            "disagrees": differs[fixed - 1],
        },
        {"what": "random, as deep as the best", "run_rate": best, "disagrees": mixed},
        {"what": "oracle", "run_rate": at_best.blocks / depth, "disagrees": 0.0},
    ]


if __name__ == "__main__":
    main()
