"""What the study measures on one trained network: all contenders certified and judged alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import torch
from laboratory import judging
from laboratory.judging import Point, Reading
from laboratory.routers import RoutedNetwork
from study_cells import FAMILIAR, Cell
from study_contenders import OWN_HEADS, Bench, Contender, contenders

from skipserve.certification.certify import Goal, Outcome, certify
from skipserve.networks import ResidualNetwork
from skipserve.training.recipes import Recipe

RISKS, CONFIDENCE = (0.01, 0.02, 0.05), 0.95
GOALS = [Goal(risk) for risk in RISKS]
IN_FP16, FP16_ROWS = ("norm", "confidence", "confidence" + OWN_HEADS), 500


def measure(cell: Cell, network: ResidualNetwork, recipe: Recipe) -> dict[str, Any]:
    """All rows of a cell; lists and numbers only."""
    torch.manual_seed(cell.seed)
    bench = Bench(network, recipe, cell.task.conditions(recipe, cell.seed))
    test = bench.readings[FAMILIAR]
    right = test.answers == test.labels[:, None]
    entered = list(contenders(bench, everything=cell.is_base))
    certified = [row for contender in entered for row in certified_rows(bench, contender)]
    sweep = [
        named(contender, contender.run(candidate, FAMILIAR))
        for contender in entered
        if not contender.guard
        for candidate in contender.candidates
    ]
    fp16 = in_fp16(bench, entered, certified, cell.task.risk) if cell.is_base else []
    return {
        "full": {name: asdict(judged_full(bench.readings[name])) for name in bench.conditions},
        "accuracy_by_depth": right.mean(axis=0).tolist(),
        "agreement_by_depth": test.agrees.mean(axis=0).tolist(),
        "norm_by_depth": bench.values["norm"][FAMILIAR].mean(axis=0).tolist(),
        "certified": certified + list(oracles(bench)),
        "sweep": sweep,
        "oracle": [
            asdict(judging.oracle(test, rate)) for rate in (0.0, *np.geomspace(0.001, 0.5, 20))
        ],
        "ranking": list(rankings(bench)),
        "opening": openings(bench),
        "fp16": list(fp16),
    }


def certified_rows(bench: Bench, contender: Contender) -> list[dict[str, Any]]:
    """The boldest candidate that passed on the certifying rows, on every condition."""
    count = len(bench.certify)

    def run(candidate: Any) -> Outcome:
        point = contender.run(candidate, "certify")
        # An expectation is rounded up, so that chance gets no favour.
        wrong = math.ceil(point.disagreement * count - 1e-6)
        return Outcome(wrong, point.run_rate, point.held_back)

    verdicts, _ = certify(run, contender.candidates, count, GOALS, CONFIDENCE)
    names = [FAMILIAR] if contender.familiar_only else list(bench.conditions)
    found = []
    for verdict in verdicts:
        for name in names:
            if verdict.candidate is None:
                point = judged_full(bench.readings[name])
            else:
                point = contender.run(contender.candidates[verdict.candidate], name)
            passed = {"certified": verdict.candidate is not None, "candidate": verdict.candidate}
            found.append(
                named(contender, point) | {"risk": verdict.goal.risk, "condition": name} | passed
            )
    return found


def judged_full(reading: Reading) -> Point:
    return judging.judge(reading, np.full(len(reading.labels), reading.answers.shape[1]))


def named(contender: Contender, point: Point) -> dict[str, Any]:
    who = {"what": contender.what, "policy": contender.policy, "guard": contender.guard}
    return who | asdict(point)


def oracles(bench: Bench) -> Iterator[dict[str, Any]]:
    for what, risk in product(("oracle", "oracle" + OWN_HEADS), RISKS):
        who = {"what": what, "policy": "exit", "guard": False, "certified": False, "risk": risk}
        for name in bench.conditions:
            point = asdict(judging.oracle(bench.reads(what)[name], risk))
            yield who | point | {"condition": name}


def rankings(bench: Bench) -> Iterator[dict[str, Any]]:
    for what, values in bench.values.items():
        for name in bench.conditions:
            area = judging.ranking(bench.reads(what)[name], values[name])
            yield {"what": what, "condition": name, "auroc": None if math.isnan(area) else area}


def openings(bench: Bench) -> dict[str, float]:
    """Mean opening of the gates, by condition."""
    if "gate" not in bench.values:
        return {}
    carried = bench.values["gate"]
    return {name: float(1 - carried[name].mean()) for name in bench.conditions}


def in_fp16(
    bench: Bench, entered: list[Contender], certified: list[dict[str, Any]], risk: float
) -> Iterator[dict[str, Any]]:
    """The thresholds certified in FP32, run by the same network in FP16, on the same rows."""
    rows = bench.conditions[FAMILIAR].inputs[:FP16_ROWS]
    labels = bench.conditions[FAMILIAR].labels[:FP16_ROWS]
    limits = torch.full([len(rows)], bench.limit)
    off = torch.full([len(rows), bench.depth - 1], torch.inf)
    for contender in entered:
        if not contender.guard or contender.what not in IN_FP16:
            continue
        wanted = {"what": contender.what, "policy": "exit", "guard": True, "risk": risk}
        row = next(row for row in certified if wanted.items() <= row.items())
        if row["candidate"] is None:
            continue
        on = torch.from_numpy(contender.candidates[row["candidate"]]).expand(len(rows), -1)
        router = bench.router_by(contender.what)
        found, runs = {"what": contender.what}, {}
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            routed = RoutedNetwork(bench.network, router, dtype)
            with torch.no_grad():
                full, (answer, depth, _, _) = routed(rows, off, limits)[0], routed(rows, on, limits)
            runs[name] = full.argmax(1), depth
            found |= {
                f"disagreement_{name}": share(answer.argmax(1) != full.argmax(1)),
                f"run_rate_{name}": float(depth.double().mean() / bench.depth),
                f"accuracy_{name}": share(answer.argmax(1) == labels),
            }
        (full32, depth32), (full16, depth16) = runs["fp32"], runs["fp16"]
        yield found | {
            "same_full": share(full32 == full16),
            "same_depth": share(depth32 == depth16),
        }


def share(which: torch.Tensor) -> float:
    return float(which.double().mean())
