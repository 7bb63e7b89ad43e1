"""Who enters the study: every way to decide how deep rows run, on one trained network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from laboratory import judging
from laboratory.judging import Point, Reading, agrees_without, by_stage, greedy
from laboratory.readers import Carry, Chance, Confidence, Margin, SmallNorm, fit_probes
from laboratory.routers import RoutedNetwork, Router, fit_router, pooled_streams
from numpy.typing import NDArray
from study_cells import Conditions
from torch import nn

from skipserve.networks import ResidualNetwork
from skipserve.routing.config import HeadKind
from skipserve.routing.propose import CANDIDATES, CAREFUL
from skipserve.tasks import SignalName
from skipserve.training.recipes import Recipe, Samples

# Wider than what is proposed for serving: the curves show where it breaks.
RATES = np.geomspace(CAREFUL, 0.5, CANDIDATES)
# Running a policy is dear: fewer rates of disagreement, and shares of the rows that run a stage.
SKIP_RATES = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
SKIP_RUNS = (0.95, 0.85, 0.7, 0.5, 0.3, 0.15, 0.05)
MOST_ROWS = 4_000
OWN_HEADS = ", own heads"


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
    """A network, its readings, and the signals fitted to it.

    ``reads`` gives the readings that belong to a signal: those of exits with heads of their own, if
    its name says so.
    """

    def __init__(self, network: ResidualNetwork, recipe: Recipe, conditions: Conditions) -> None:
        self.network, self.conditions = network, conditions
        self.depth = network.config.depth
        self.propose, self.certify = first(recipe.draw("propose")), first(recipe.draw("certify"))
        train = recipe.draw("train").inputs
        decisions = range(1, self.depth)
        self.router, self.limit = self.fit("norm", train)
        self.readings = {
            name: judging.read(network, self.router.guard, samples.inputs, samples.labels)
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
            "small norm": [SmallNorm() for _ in decisions],
            "projected_norm": self.fit("projected_norm", train)[0].signals,
            "margin": [Margin(network.head) for _ in decisions],
            "confidence": [Confidence(network.head) for _ in decisions],
            "probe": fit_probes(pooled, answers == answers[:, -1:]),
        }
        own, _ = self.fit("confidence", train, heads="distilled")
        self.signals["confidence" + OWN_HEADS] = own.signals
        self.heads = own.heads
        self.own = {name: reading.by_heads(own.heads) for name, reading in self.readings.items()}
        if network.config.connection == "gated":
            self.signals["gate"] = [Carry(network.blocks[blocks]) for blocks in decisions]
        self.values = {
            what: {name: reading.signal(signals) for name, reading in self.readings.items()}
            for what, signals in self.signals.items()
        }

    def router_by(self, what: str) -> Router:
        """Exits by a signal, answered by the heads that belong to it."""
        heads = self.heads if what.endswith(OWN_HEADS) else ()
        return replace(self.router, signals=self.signals[what], heads=heads)

    def reads(self, what: str) -> dict[str, Reading]:
        return self.own if what.endswith(OWN_HEADS) else self.readings

    def fit(
        self, signal: SignalName, train: torch.Tensor, heads: HeadKind = "shared"
    ) -> tuple[Router, float]:
        return fit_router(self.network, signal, train, self.propose.inputs, heads)


def first(samples: Samples) -> Samples:
    """No more rows than the study has time for."""
    return Samples(samples.inputs[:MOST_ROWS], samples.labels[:MOST_ROWS])


def contenders(bench: Bench, everything: bool) -> Iterator[Contender]:
    yield from exits(bench)
    yield from baselines(bench)
    if everything:
        yield from skips(bench)


def exits(bench: Bench) -> Iterator[Contender]:
    """Every signal with a threshold a depth, guarded and not; and the norm with one for all."""
    for what, values in bench.values.items():
        readings = bench.reads(what)
        proposing = readings["propose"]
        agrees = proposing.agrees[:, :-1]
        for guard in (False, True):
            limit = bench.limit if guard else math.inf

            def run(
                thresholds: NDArray[np.float32],
                name: str,
                values: dict[str, NDArray[np.float32]] = values,
                limit: float = limit,
                readings: dict[str, Reading] = readings,
            ) -> Point:
                reading = readings[name]
                held = ~(reading.distance <= limit)
                depth = judging.depth_run(thresholds, values[name], held)
                return judging.judge(reading, depth, held)

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
    for what in ("fixed depth", "fixed depth" + OWN_HEADS):

        def fixed(depth: int, name: str, what: str = what) -> Point:
            reading = bench.reads(what)[name]
            return judging.judge(reading, np.full(len(reading.labels), depth))

        yield Contender(what, list(range(bench.depth, 0, -1)), fixed)
    chances = np.geomspace(1e-3, 0.95, CANDIDATES)
    yield Contender("random", chances, lambda p, name: judging.at_random(bench.readings[name], p))


def skips(bench: Bench) -> Iterator[Contender]:
    """The policy ``skip`` by running it: what a row leaves out changes what it meets later.

    As in serving, each stage has the threshold at which leaving it out alone errs at most at one
    rate; random skipping has one share of the rows for all stages.
    """
    signals: dict[str, Sequence[nn.Module]] = {
        what: bench.signals[what]
        for what in ("norm", "confidence", "gate")
        if what in bench.signals
    }
    signals["random"] = [Chance() for _ in range(1, bench.depth)]
    agrees = agrees_without(bench.network, bench.propose.inputs)
    rows = {"certify": bench.certify, **bench.conditions}
    for what, each in signals.items():
        routed = RoutedNetwork(bench.network, replace(bench.router, signals=each, policy="skip"))
        if what == "random":
            found = [np.full(bench.depth - 1, share, dtype=np.float32) for share in SKIP_RUNS]
        else:
            values = bench.values[what]["propose"]
            found = [by_stage(values, agrees, rate) for rate in SKIP_RATES]

        def run(
            thresholds: NDArray[np.float32], name: str, routed: RoutedNetwork = routed
        ) -> Point:
            inputs = rows[name].inputs
            return judging.judge_routed(routed, inputs, bench.readings[name], thresholds)

        yield Contender(what, found, run, policy="skip", familiar_only=True)
