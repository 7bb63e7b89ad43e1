"""What the study measures on one trained network: all contenders certified and judged alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study_cells import FAMILIAR, Cell, Conditions
from torch import nn

from skipserve.networks import ResidualNetwork
from skipserve.routing import study
from skipserve.routing.certify import Goal, Outcome, certify
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router, pooled_streams
from skipserve.routing.propose import CANDIDATES, CAREFUL, greedy
from skipserve.routing.routed import RoutedNetwork, Router
from skipserve.routing.signals import Confidence, Margin
from skipserve.routing.study import Point, Reading
from skipserve.training.recipes import Recipe, Samples

RISKS, CONFIDENCE = (0.01, 0.02, 0.05), 0.95
GOALS = [Goal(risk) for risk in RISKS]
# Wider than what is proposed for serving: the curves show where it breaks.
RATES = np.geomspace(CAREFUL, 0.5, CANDIDATES)
# Shares of the rows that run a stage.
SKIP_RUNS = (0.95, 0.85, 0.7, 0.5, 0.3, 0.15, 0.05)
MOST_ROWS, FP16_ROWS = 4_000, 500


@dataclass(frozen=True)
class Contender:
    """Something that decides how deep rows run.

    Attributes:
        what: A signal, or a baseline.
        candidates: From careful to bold.
        run: A candidate on the rows of one name ("certify" or a condition).
        policy: ``exit`` or ``skip``.
        guard: Whether unfamiliar rows run everything.
        familiar_only: Too dear to run on every condition.
    """

    what: str
    candidates: Sequence[Any]
    run: Callable[[Any, str], Point]
    policy: str = "exit"
    guard: bool = False
    familiar_only: bool = False


class Bench:
    """A network, its readings, and the signals fitted to it."""

    def __init__(self, network: ResidualNetwork, recipe: Recipe, conditions: Conditions) -> None:
        self.network, self.conditions = network, conditions
        self.depth = network.config.depth
        self.propose, self.certify = first(recipe.draw("propose")), first(recipe.draw("certify"))
        train = recipe.draw("train").inputs
        decisions = range(1, self.depth)
        self.router, self.limit = self.fit("norm", train)
        self.readings = {
            name: study.read(network, self.router.guard, samples.inputs, samples.labels)
            for name, samples in {
                "propose": self.propose,
                "certify": self.certify,
                **conditions,
            }.items()
        }
        pooled = pooled_streams(network, train)
        with torch.no_grad():
            answers = network.head(pooled).argmax(dim=2).numpy()
        self.signals: dict[str, Sequence[nn.Module]] = {
            "norm": self.router.signals,
            "small norm": [study.SmallNorm() for _ in decisions],
            "projected_norm": self.fit("projected_norm", train)[0].signals,
            "margin": [Margin(network.head) for _ in decisions],
            "confidence": [Confidence(network.head) for _ in decisions],
            "probe": study.fit_probes(pooled, answers == answers[:, -1:]),
        }
        if network.config.connection == "gated":
            self.signals["gate"] = [study.Carry(network.blocks[blocks]) for blocks in decisions]
        self.values = {
            what: {name: reading.signal(signals) for name, reading in self.readings.items()}
            for what, signals in self.signals.items()
        }

    def fit(self, signal: str, train: torch.Tensor) -> tuple[Router, float]:
        config = RouterConfig.model_validate({"signal": signal})
        return fit_router(config, self.network, range(1, self.depth), train, self.propose.inputs)


def first(samples: Samples) -> Samples:
    """No more rows than the study has time for."""
    return Samples(samples.inputs[:MOST_ROWS], samples.labels[:MOST_ROWS])


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
            asdict(study.oracle(test, rate)) for rate in (0.0, *np.geomspace(0.001, 0.5, 20))
        ],
        "ranking": list(rankings(bench)),
        "opening": openings(bench),
        "fp16": list(fp16),
    }


def contenders(bench: Bench, everything: bool) -> Iterator[Contender]:
    yield from exits(bench)
    yield from baselines(bench)
    if everything:
        yield from skips(bench)


def exits(bench: Bench) -> Iterator[Contender]:
    """Every signal with a threshold a depth, guarded and not; and the norm with one for all."""
    proposing = bench.readings["propose"]
    agrees = proposing.agrees[:, :-1]
    for what, values in bench.values.items():
        for guard in (False, True):
            limit = bench.limit if guard else math.inf

            def run(
                thresholds: NDArray[np.float32],
                name: str,
                values: dict[str, NDArray[np.float32]] = values,
                limit: float = limit,
            ) -> Point:
                reading = bench.readings[name]
                held = reading.distance > limit
                depth = study.depth_run(thresholds, values[name], held)
                return study.judge(reading, depth, held)

            familiar = proposing.distance <= limit
            signal, right = values["propose"][familiar], agrees[familiar]
            found = [greedy(signal, right, rate) for rate in RATES]
            yield Contender(what, found, run, guard=guard)
            if what == "norm":
                shares = np.geomspace(5e-4, 1.0, CANDIDATES)
                levels = np.quantile(signal, 1 - shares).astype(np.float32)
                same = [np.full(bench.depth - 1, level, dtype=np.float32) for level in levels]
                yield Contender("norm, one threshold", same, run, guard=guard)


def baselines(bench: Bench) -> Iterator[Contender]:
    def fixed(depth: int, name: str) -> Point:
        reading = bench.readings[name]
        return study.judge(reading, np.full(len(reading.labels), depth))

    yield Contender("fixed depth", list(range(bench.depth, 0, -1)), fixed)
    chances = np.geomspace(1e-3, 0.95, CANDIDATES)
    yield Contender("random", chances, lambda p, name: study.at_random(bench.readings[name], p))


def skips(bench: Bench) -> Iterator[Contender]:
    """The policy ``skip`` by running it: what a row leaves out changes what it meets later.

    As in serving, one share of the rows for all stages, by the signals of full depth; random
    skipping has the same shares.
    """
    signals: dict[str, Sequence[nn.Module]] = {
        what: bench.signals[what]
        for what in ("norm", "confidence", "gate")
        if what in bench.signals
    }
    signals["random"] = [study.Chance() for _ in range(1, bench.depth)]
    even = np.linspace(0, 1, 1001)[:, None].repeat(bench.depth - 1, axis=1)
    rows = {"certify": bench.certify, **bench.conditions}
    for what, each in signals.items():
        routed = RoutedNetwork(bench.network, replace(bench.router, signals=each, policy="skip"))
        values = bench.values[what]["propose"] if what in bench.values else even
        found = [np.quantile(values, run, axis=0).astype(np.float32) for run in SKIP_RUNS]

        def run(
            thresholds: NDArray[np.float32], name: str, routed: RoutedNetwork = routed
        ) -> Point:
            inputs = rows[name].inputs
            return study.judge_routed(routed, inputs, bench.readings[name], thresholds)

        yield Contender(what, found, run, policy="skip", familiar_only=True)


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
    return study.judge(reading, np.full(len(reading.labels), reading.answers.shape[1]))


def named(contender: Contender, point: Point) -> dict[str, Any]:
    who = {"what": contender.what, "policy": contender.policy, "guard": contender.guard}
    return who | asdict(point)


def oracles(bench: Bench) -> Iterator[dict[str, Any]]:
    who = {"what": "oracle", "policy": "exit", "guard": False, "certified": False}
    for risk in RISKS:
        for name in bench.conditions:
            point = asdict(study.oracle(bench.readings[name], risk))
            yield who | point | {"risk": risk, "condition": name}


def rankings(bench: Bench) -> Iterator[dict[str, Any]]:
    for what, values in bench.values.items():
        for name in bench.conditions:
            area = study.ranking(bench.readings[name], values[name])
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
        if not contender.guard or contender.what not in ("norm", "confidence"):
            continue
        wanted = {"what": contender.what, "policy": "exit", "guard": True, "risk": risk}
        row = next(row for row in certified if wanted.items() <= row.items())
        if row["candidate"] is None:
            continue
        on = torch.from_numpy(contender.candidates[row["candidate"]]).expand(len(rows), -1)
        router = replace(bench.router, signals=bench.signals[contender.what])
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
