"""One load test: warm up, alternate blocks as asked with blocks of the baseline, judge."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from skipserve.errors import ConfigError
from skipserve.loadtest.blocks import Block, BlockResult, Setup
from skipserve.loadtest.client import Client
from skipserve.loadtest.environment import describe
from skipserve.loadtest.gate import compare_counts, judge, verdict_of
from skipserve.loadtest.intervals import samples_needed
from skipserve.loadtest.payloads import Choice, with_router_off
from skipserve.loadtest.pools import Subject
from skipserve.loadtest.results import Arm, ArmName, Check, Report
from skipserve.loadtest.schedule import Arrivals, ShapeName, shape
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.target import Target

Say = Callable[[str], None]
WARM_UP_S = 2.0
# Enough for the JVM's compiler; more would leave a queue behind on a service that cannot keep up.
MOST_WARM_UP_RATE = 300.0
# Long enough to settle, short enough that whatever slows the machine slows both arms.
SHORTEST_BLOCK_S, LONGEST_BLOCK_S = 1.0, 5.0
MOST_BLOCKS = 60


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        choices: The mix.
        duration_s: As asked; the baseline takes as long again.
        rate: Requests a second, at the height of the shape for ``steady``, ``step``, ``soak``.
        users: Instead of a rate, for a closed loop.
        shape: Of the rate over time.
        arrivals: How requests are spaced.
        baseline: Whether to alternate with the same mix at full depth.
        connections: Requests that can be on their way at once.
        timeout_s: After which a request is given up.
        seed: Of arrivals and mix.
    """

    choices: list[Choice]
    duration_s: float
    rate: float = 0.0
    users: int | None = None
    shape: ShapeName = "steady"
    arrivals: Arrivals = "poisson"
    baseline: bool = True
    connections: int = 512
    timeout_s: float = 10.0
    seed: int = 0

    def segments(self) -> list[list[tuple[float, float]]]:
        """The rate over time, cut into blocks.

        Raises:
            ConfigError: If rate, duration or shape is wrong.
        """
        whole = shape(self.shape, self.rate if self.users is None else 1.0, self.duration_s)
        if self.shape in ("step", "spike"):
            return [[(one.duration_s, one.rate) for one in whole]]
        block_s = min(max(self.duration_s / 10, SHORTEST_BLOCK_S), LONGEST_BLOCK_S)
        count = max(1, min(round(self.duration_s / block_s), MOST_BLOCKS))
        return [[(self.duration_s / count, whole[0].rate)] for _ in range(count)]

    def check(self, objective: Objective) -> None:
        """Refuse what cannot be judged, before it takes time.

        Raises:
            ConfigError: If the duration is too short for a percentile, or something is wrong.
        """
        expected = sum(s * rate for block in self.segments() for s, rate in block)
        for percent, _ in objective.percentiles if self.users is None else ():
            needed = samples_needed(percent)
            # A Poisson count falls short of its mean half of the time.
            if expected - 2 * math.sqrt(expected) < needed:
                raise ConfigError(
                    f"{self.duration_s:g} s at {self.rate:g} requests/s are about {expected:.0f} "
                    f"requests; an interval for p{percent:g} takes {needed}: run at least "
                    f"{math.ceil(self.duration_s * (needed + 3 * math.sqrt(needed)) / expected)} s"
                )


def run(
    plan: Plan,
    objective: Objective,
    target: Target,
    subjects: Sequence[Subject],
    stop: threading.Event,
    say: Say,
) -> Report:
    """Run a plan; stops early, with a partial report, when ``stop`` is set.

    Raises:
        ConfigError: If the plan cannot be judged.
        LoadTestError: If the client dies or the service's metrics cannot be read.
    """
    plan.check(objective)
    _check_router(plan, objective, subjects)
    environment = describe()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    mixes: dict[ArmName, list[Choice]] = {"asked": plan.choices}
    off = with_router_off(plan.choices)
    if plan.baseline and off != plan.choices and any(one.has_router for one in subjects):
        mixes["baseline"] = off
    blocks: dict[ArmName, list[BlockResult]] = {name: [] for name in mixes}
    pools = [subject.pool for subject in subjects]
    before = target.requests()
    setup = Setup(target.host, pools, plan.connections, plan.timeout_s)
    with Client(setup) as client, stopping(client, stop):
        every = [choice for mix in mixes.values() for choice in mix]
        rate = min(plan.segments()[0][0][1], MOST_WARM_UP_RATE)
        say(f"warming up for {WARM_UP_S:g} s")
        warm = client.run(
            Block(every, [(WARM_UP_S, rate)], plan.arrivals, plan.seed, users=plan.users)
        )
        for name, number, block in _order(plan, mixes):
            if stop.is_set():
                break
            result = client.run(block)
            blocks[name].append(result)
            say(_line(name, number, result))
    slice_s = _slice_s(plan)
    arms = [Arm(name, mixes[name], blocks[name], slice_s) for name in mixes]
    checks = judge(objective, arms[0], arms[1] if len(arms) > 1 else None)
    warmth = Arm("asked", every, [warm], slice_s)
    checks.append(_counts(target, before, [warmth, *arms]))
    partial = stop.is_set()
    if partial:
        whole_s = plan.duration_s
        found = f"stopped after {arms[0].ran_s:.1f} of {whole_s:g} s; the report is partial"
        checks.insert(0, Check("complete", "INVALID", found))
    return Report(
        verdict=verdict_of(checks),
        checks=checks,
        partial=partial,
        started=started,
        plan=as_text(plan, objective, target),
        environment=environment,
        models={subject.pool.model: about(subject) for subject in subjects},
        arms=arms,
    )


@contextlib.contextmanager
def stopping(client: Client, stop: threading.Event) -> Iterator[None]:
    """Stop the client's block when ``stop`` is set."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            if stop.is_set():
                client.stop()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _order(plan: Plan, mixes: dict[ArmName, list[Choice]]) -> Iterator[tuple[ArmName, int, Block]]:
    for number, segments in enumerate(plan.segments()):
        # Who goes first changes, so that a trend favours neither; both get the same arrivals.
        names = list(mixes) if number % 2 == 0 else list(reversed(mixes))
        for name in names:
            yield (
                name,
                number,
                Block(
                    mixes[name],
                    segments,
                    plan.arrivals,
                    plan.seed + 1 + number,
                    _slice_s(plan),
                    plan.users,
                ),
            )


def _slice_s(plan: Plan) -> float:
    block_s = sum(duration_s for duration_s, _ in plan.segments()[0])
    return min(block_s, max(1.0, block_s / MOST_BLOCKS))


def _line(name: ArmName, number: int, result: BlockResult) -> str:
    whole = Arm(name, [], [result], 1.0).total
    what = "as asked" if name == "asked" else "baseline"
    corrected = whole.corrected
    return (
        f"{what} {number + 1:>3}: {whole.requests:>6,} requests, p50 "
        f"{corrected.percentile(50) * 1e3:.2f} ms, p99 {corrected.percentile(99) * 1e3:.2f} ms, "
        f"{whole.failed} failed"
    )


def _counts(target: Target, before: Counter[str], arms: Sequence[Arm]) -> Check:
    answered: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    for arm in arms:
        unanswered += arm.total.unanswered
        answered += Counter(
            {
                key.split()[0]: count
                for key, count in arm.total.statuses.items()
                if key.endswith(" 200")
            }
        )
    expected = Counter({f"{model} 200": count for model, count in answered.items()})
    since = target.requests_reaching(before, expected)
    served = Counter({model: since[f"{model} 200"] for model in answered})
    return compare_counts(answered, unanswered, served)


def _check_router(plan: Plan, objective: Objective, subjects: Sequence[Subject]) -> None:
    if objective.disagreement is None:
        return
    routed = any(choice.router != "off" for choice in plan.choices)
    if not routed or not any(subject.has_router for subject in subjects):
        raise ConfigError(
            "slo: disagreement is about rows the router stops early, and this mix has none: "
            "leave it out, or choose a model with a router and --router on"
        )


def about(subject: Subject) -> dict[str, Any]:
    """What a report says of a model."""
    return {
        "backend": subject.running.backend,
        "provider": subject.running.provider,
        "precision": subject.running.precision,
        "checkpoint": subject.running.checkpoint,
        "file_sha256": subject.file_sha256,
        "depth": subject.pool.depth,
        "rows": len(subject.pool.rows),
        "risks": subject.risks,
        "reasons": subject.reasons,
        "disagreement_of_the_pool": subject.foreseen,
    }


def as_text(plan: Plan, objective: Objective, target: Target) -> dict[str, Any]:
    """What a report says of a plan."""
    load = f"{plan.users} users" if plan.users is not None else f"{plan.rate:g} requests/s"
    return {
        "objective": str(objective),
        "load": load,
        "loop": "open" if plan.users is None else "closed",
        "arrivals": plan.arrivals if plan.users is None else "when the last reply is there",
        "shape": plan.shape,
        "duration_s": plan.duration_s,
        "mix": [f"{choice} ({choice.weight:g})" for choice in plan.choices],
        "connections": plan.connections,
        "timeout_s": plan.timeout_s,
        "seed": plan.seed,
        "service": target.host,
    }
