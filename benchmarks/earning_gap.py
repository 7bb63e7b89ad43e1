"""What lies between what traffic earns and an offline certificate: a simulation, part by part.

    python benchmarks/earning_gap.py --artifact artifacts/mnist1d_resnet

- ``blocks``: run by the boldest candidate earned after so many evidence rows, and by a service of
  which a share of the rows gives evidence at full depth, over the same service with the artifact's
  offline certificate. With the artifact's own candidates and with twice as many, with the bets of
  `skipserve.earning.wealth` and with others.
- ``again``: evidence rows until a candidate of 0.3 ε is earned in a later epoch, by the bets.

Losses are those of the artifact on rows that neither training nor proposing has touched, drawn with
replacement. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from earned import said
from earning_proposing import Traffic, traffic_of
from earning_streams import Floats, Ints, Rows, Wealth, earned_after, rows_needed, rows_to_earn

from skipserve.artifacts.artifact import open_artifact
from skipserve.earning.ladder import Ladder
from skipserve.earning.wealth import SHARES_OF_RISK, level_of, log_wealth
from skipserve.routing.propose import Observations, propose
from skipserve.routing.stopping import within
from skipserve.runtime.engine import Engine
from skipserve.safety.kind import own_ladder
from skipserve.training.recipes import open_recipe

RISK, DELTA, SHARE = 0.01, 0.05, 0.01
# 3,000 rows, 5,000, … at once, and 240 more in the 80 s after them at 300 rows/s and a share of 1 %
EVIDENCE = (3_240, 5_240, 7_240, 10_000)
WITHIN = 3_000
CHUNK = 500


def bets(shares: Sequence[float] | Floats, weights: Sequence[float] | Floats) -> Wealth:
    """The wealth of other bets: rates as shares of ε, and how much of the money is on each."""
    on, log_weights = np.asarray(shares), np.log(np.asarray(weights) / np.sum(weights))

    def log_of(rows: Ints, differ: Ints, risk: float) -> Floats:
        wrong, agree = np.asarray(differ)[..., None], np.asarray(rows - differ)[..., None]
        if_agrees = np.log1p(-on * risk) - np.log1p(-risk)
        parts = log_weights + wrong * np.log(on) + agree * if_agrees
        return np.asarray(np.logaddexp.reduce(parts, axis=-1))

    return log_of


FINE = np.linspace(0.02, 0.96, 48)
BETS: dict[str, Wealth] = {
    "as served": log_wealth,
    "money like s (1 − s)²": bets(SHARES_OF_RISK, SHARES_OF_RISK * (1 - SHARES_OF_RISK) ** 2),
    "the same, 48 rates": bets(FINE, FINE * (1 - FINE) ** 2),
    "48 rates, money like s³ (1 − s)³": bets(FINE, (FINE * (1 - FINE)) ** 3),
    "all on 0.3 ε, the true rate": bets([0.3], [1]),
    "all on 0.45 ε": bets([0.45], [1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("artifacts/mnist1d_resnet"))
    parser.add_argument("--streams", type=int, default=1_500)
    options = parser.parse_args()
    found = {"blocks": list(blocks(options)), "again": list(again())}
    for rows in found.values():
        print(f"\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
        for row in rows:
            print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
    print(json.dumps({"benchmark": "earning_gap", "streams": options.streams, **found}))


def blocks(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    artifact = open_artifact(options.artifact)
    own, recipe, engine = own_ladder(artifact), open_recipe("mnist1d"), Engine.for_many(artifact)
    fresh = np.concatenate([recipe.draw(split).inputs.numpy() for split in ("certify", "test")])
    traffic = traffic_of(engine, fresh)
    before = traffic_of(engine, recipe.draw("propose").inputs.numpy())
    offline = with_evidence(np.array(said(options.artifact)))
    ladders = {"own": own, "twice as many": finer(before, own)}
    for name, ladder in ladders.items():
        differ, run_rate = traffic.outcome(ladder)
        rows = Rows.seen(differ.T, run_rate)
        # Bolder ones are as good as never earned, and would only take time.
        some = rows.first(int((rows.risks < 2.5 * RISK).argmin()) or len(rows.risks))
        ran = np.concatenate([[1.0], some.run_rate])
        for kind in list(BETS)[:2]:
            for count in EVIDENCE:
                rng = np.random.default_rng(1)
                asked = (some, RISK, level_of(1, DELTA), count, CHUNK, BETS[kind])
                parts = [earned_after(rng, *asked)[0] for _ in range(0, options.streams, CHUNK)]
                earned = ran[np.concatenate(parts)]
                over = with_evidence(earned) / offline
                yield {
                    "candidates": f"{name} ({len(ladder)})",
                    "bets": kind,
                    "evidence rows": f"{count:,}",
                    "blocks run": f"{earned.mean():.2%}",
                    "with evidence": f"{with_evidence(earned).mean():.2%}",
                    "over offline": f"{over.mean():.3f}",
                    "in 90 % at most": f"{np.quantile(over, 0.9):.3f}",
                    "at most 1.3": f"{(over <= 1.3).mean():.1%}",
                }


def with_evidence(run_rate: Floats) -> Floats:
    """Of a service in which a share of the rows runs everything."""
    return SHARE + (1 - SHARE) * run_rate


def finer(traffic: Traffic, own: Ladder) -> Ladder:
    """About twice as many candidates, from the rows that the artifact's own are from."""
    about, shown = traffic.about, traffic.shown
    inside = within(shown.distances, own.guard_limit)
    seen = Observations(about.blocks, shown.signals, shown.agrees, inside)
    more = [risk * 0.7 for risk in about.risks]
    return Ladder(np.array(propose(seen, [*about.risks, *more]), np.float32), own.guard_limit)


def again(streams: int = 10_000) -> Iterator[dict[str, Any]]:
    for name, wealth in BETS.items():
        first = rows_needed(RISK, level_of(1, DELTA), 40, wealth)
        row: dict[str, Any] = {
            "bets": name,
            "first certificate": f"{first[0]:,} rows",
            f"may disagree in {WITHIN:,}": int((first <= WITHIN).sum()) - 1,
        }
        for epoch in (2, 3, 5, 10):
            level = level_of(epoch, DELTA)
            asked = (0.3 * RISK, RISK, level, 20_000, streams, wealth)
            found = rows_to_earn(np.random.default_rng(3), *asked)
            if epoch == 2:
                row["median, epoch 2"] = f"{np.median(found):,.0f}"
            row[f"within {WITHIN:,}, epoch {epoch}"] = f"{(found <= WITHIN).mean():.1%}"
        yield row


if __name__ == "__main__":
    main()
