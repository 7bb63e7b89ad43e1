"""How often the alarm is false, and how many evidence rows it takes: simulation of safety/alarm.py.

Compared with the bettor who knows the rate and the first bad row (one bet on it, no restarts), and
with the same alarm on traffic that was good for a long time. Prints two tables, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import numpy as np

from skipserve.safety.alarm import Evidence

RISK, ALPHA = 0.01, 0.05
LOOK = 20  # rows between two looks
GOOD = 0.6 * RISK  # what a router certified at RISK is usually like


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="for the share of false alarms")
    parser.add_argument("--rows", type=int, default=20_000, help="of each of them")
    parser.add_argument("--detections", type=int, default=200, help="runs at each rate")
    options = parser.parse_args()
    false = false_alarms(options.runs, options.rows)
    print("| true rate | runs | rows each | raised | 95 % upper bound |")
    print("|---|---|---|---|---|")
    print(
        f"| 1 ε | {false['runs']} | {false['rows']:,} "
        f"| {false['share']:.1%} | {false['upper']:.1%} |"
    )
    found = [detection(times, options.detections) for times in (1.5, 2.0, 3.0, 5.0, 10.0)]
    print()
    print(
        "| true rate | who knows it: mean | ours: mean | median | 90 % | after 10,000 good rows |"
    )
    print("|---|---|---|---|---|---|")
    for row in found:
        print(
            "| {times:g} ε | {oracle:,.0f} | {mean:,.0f} | {median:,.0f} | {p90:,.0f} "
            "| {late:,.0f} |".format(**row)
        )
    print(json.dumps({"benchmark": "alarm", "false": false, "found": found}))


def false_alarms(runs: int, rows: int) -> dict[str, Any]:
    raised = sum(
        rows_to_alarm(np.random.default_rng(run), RISK, rows) < math.inf for run in range(runs)
    )
    share = raised / runs
    return {
        "runs": runs,
        "rows": rows,
        "share": share,
        "upper": share + 1.645 * math.sqrt(max(share, 1 / runs) / runs),
    }


def detection(times: float, runs: int) -> dict[str, Any]:
    rate, most = times * RISK, 40_000
    oracle = [who_knows(np.random.default_rng(run), rate, most) for run in range(runs)]
    ours = [rows_to_alarm(np.random.default_rng(run), rate, most) for run in range(runs)]
    late = [
        rows_to_alarm(np.random.default_rng(run), rate, most, good=10_000)
        for run in range(runs // 4)
    ]
    return {
        "times": times,
        "oracle": float(np.mean(oracle)),
        "mean": float(np.mean(np.minimum(ours, most))),
        "median": float(np.median(ours)),
        "p90": float(np.quantile(ours, 0.9, method="higher")),
        "late": float(np.median(late)),
    }


def rows_to_alarm(rng: np.random.Generator, rate: float, most: int, good: int = 0) -> float:
    evidence = Evidence([RISK])
    for seen in range(0, good + most, LOOK):
        differ = int(rng.binomial(LOOK, rate if seen >= good else GOOD))
        evidence.update({RISK: (LOOK, differ)})
        if evidence.wealth >= 1 / ALPHA:
            return seen + LOOK - good
    return math.inf


def who_knows(rng: np.random.Generator, rate: float, most: int) -> float:
    differs = rng.random(most) < rate
    gain, loss = math.log(rate / RISK), math.log((1 - rate) / (1 - RISK))
    reached = np.where(differs, gain, loss).cumsum() >= math.log(1 / ALPHA)
    return float(reached.argmax() + 1) if reached.any() else most


if __name__ == "__main__":
    main()
