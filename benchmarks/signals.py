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
from laboratory.judging import seen as observations_of
from laboratory.routers import Router, fit_router, pooled_streams
from numpy.typing import NDArray
from torch import Tensor

from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.certification.certify import Goal, Outcome, certify, shortest_fixed
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import HeadKind
from skipserve.routing.judge import ByDepth, oracle
from skipserve.routing.propose import BOLD, CAREFUL, Observations, Thresholds, greedy, simulate
from skipserve.tasks import SignalName
from skipserve.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
RISK, CONFIDENCE, CANDIDATES = 0.01, 0.95, 60
CONTENDERS: list[tuple[SignalName, HeadKind]] = [
    *((name, "shared") for name in get_args(SignalName)),
    ("confidence", "distilled"),
]


class Rows:
    """One split: its pooled streams [N, depth, width] and the head's answers there [N, depth]."""

    def __init__(self, network: ResidualNetwork, inputs: Tensor) -> None:
        self.pooled = pooled_streams(network, inputs)
        with torch.no_grad():
            answers = network.head(self.pooled).argmax(dim=2).numpy()
        self.full = answers[:, -1:]
        self.readings = ByDepth(np.arange(1, network.config.depth + 1), answers == self.full)

    @torch.no_grad()
    def seen(self, router: Router) -> Observations:
        """Signals, and whether a row that leaves is answered as at full depth, by decision."""
        at = [self.pooled[:, blocks - 1] for blocks in router.decisions]
        signals = [signal(one) for signal, one in zip(router.signals, at, strict=True)]
        agrees = self.readings.agrees[:, :-1]
        if router.heads:
            own = [head(one).argmax(dim=1) for head, one in zip(router.heads, at, strict=True)]
            agrees = torch.stack(own, dim=1).numpy() == self.full
        return observations_of(torch.stack(signals, dim=1).numpy(), agrees)


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
    recipe = build.trained.recipe
    train, proposing = (recipe.draw(split).inputs for split in ("train", "propose"))
    splits = {
        split: Rows(network, recipe.draw(split).inputs) for split in ("propose", "certify", "test")
    }
    rows, seen_by = [], []
    for signal, heads in CONTENDERS:
        router, _ = fit_router(network, signal, train, proposing, heads)
        seen = {split: each.seen(router) for split, each in splits.items()}
        seen_by.append({split: one.agrees for split, one in seen.items()})
        own = ", heads of its own" if router.heads else ""
        rows.append({"what": signal + own} | judged(seen, depth))
    best = min(range(len(rows)), key=lambda place: rows[place]["run_rate"])
    shared_head, own_heads = seen_by[0], seen_by[-1]
    return [
        *rows,
        {"what": "shortest fixed depth"} | fixed(shared_head),
        {"what": "shortest fixed depth, heads of its own"} | fixed(own_heads),
        {"what": "random, as deep as the best"}
        | at_random(seen_by[best]["test"], rows[best]["run_rate"]),
        {"what": "oracle"} | earliest(shared_head["test"]),
        {"what": "oracle, heads of its own"} | earliest(own_heads["test"]),
    ]


def judged(seen: dict[str, Observations], depth: int) -> dict[str, float]:
    """Of the boldest candidate that is certified; full depth if there is none."""
    count = len(seen["certify"].agrees)

    def run(thresholds: Thresholds) -> Outcome:
        wrong, ran = simulate(thresholds, seen["certify"])
        return Outcome(round(wrong * count), ran / depth, 0.0)

    rates = np.geomspace(CAREFUL, BOLD, CANDIDATES)
    candidates = [greedy(seen["propose"], rate) for rate in rates]
    (verdict,), _ = certify(run, candidates, count, [Goal(RISK)], CONFIDENCE)
    if verdict.candidate is None:
        return {"run_rate": 1.0, "disagrees": 0.0}
    wrong, ran = simulate(candidates[verdict.candidate], seen["test"])
    return {"run_rate": ran / depth, "disagrees": wrong}


def fixed(agrees: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Every row stopped at the fewest blocks that can be certified."""
    depth = agrees["test"].shape[1] + 1
    certifying = answers(agrees["certify"])
    blocks = shortest_fixed(certifying.blocks, certifying.agrees, RISK, CONFIDENCE)
    wrong = 1 - answers(agrees["test"]).agrees[:, blocks - 1].mean()
    return {"run_rate": blocks / depth, "disagrees": float(wrong)}


def at_random(agrees: NDArray[np.bool_], run_rate: float) -> dict[str, float]:
    """Rows stopped at random: a mixture of the two depths around this one."""
    depth = agrees.shape[1] + 1
    low = min(int(run_rate * depth), depth - 1)
    share = run_rate * depth - low
    differs = 1 - answers(agrees).agrees.mean(axis=0)
    mixed = (1 - share) * differs[low - 1] + share * differs[low]
    return {"run_rate": run_rate, "disagrees": float(mixed)}


def earliest(agrees: NDArray[np.bool_]) -> dict[str, float]:
    """Every row stopped where it first agrees."""
    best = oracle(answers(agrees), 0.0)
    return {"run_rate": best.blocks / (agrees.shape[1] + 1), "disagrees": best.disagreement}


def answers(agrees: NDArray[np.bool_]) -> ByDepth:
    """Only whether an answer is that of full depth counts [N, depth]."""
    whole = np.append(agrees, np.ones((len(agrees), 1), dtype=bool), axis=1)
    return ByDepth(np.arange(1, whole.shape[1] + 1), whole)


if __name__ == "__main__":
    main()
