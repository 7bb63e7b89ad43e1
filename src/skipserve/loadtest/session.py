"""One load test: warm up, alternate periods as asked with periods of the baseline, judge."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from skipserve.errors import ConfigError
from skipserve.loadtest.client import Client
from skipserve.loadtest.environment import describe
from skipserve.loadtest.gate import compare_counts, judge, verdict_of
from skipserve.loadtest.payloads import Choice
from skipserve.loadtest.periods import Period, PeriodResult, Setup
from skipserve.loadtest.plan import Plan, as_text, mixes_of
from skipserve.loadtest.pools import Known, Subject
from skipserve.loadtest.results import Arm, ArmName, Check, Report
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.target import Target

Say = Callable[[str], None]


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
    check_disagreement(plan, objective, subjects)
    environment = describe()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    mixes = mixes_of(plan, subjects)
    periods: dict[ArmName, list[PeriodResult]] = {name: [] for name in mixes}
    pools = [subject.pool for subject in subjects]
    before = target.requests()
    setup = Setup(target.host, pools, plan.connections, plan.timeout_s)
    with Client(setup) as client, stopping(client, stop):
        every = [choice for mix in mixes.values() for choice in mix]
        say("warming up")
        warm = client.run(plan.warm_up(every))
        for name, number, period in _order(plan, mixes):
            if stop.is_set():
                break
            result = client.run(period)
            periods[name].append(result)
            say(_line(name, number, result))
    slice_s = plan.slice_s
    arms = [Arm(name, mixes[name], periods[name], slice_s) for name in mixes]
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
    """Stop the client's period when ``stop`` is set."""
    done = threading.Event()

    def watch() -> None:
        # Again and again: a stop that arrives just before its period is one for nothing.
        while not done.wait(0.1):
            if stop.is_set():
                client.stop()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _order(plan: Plan, mixes: dict[ArmName, list[Choice]]) -> Iterator[tuple[ArmName, int, Period]]:
    for number, segments in enumerate(plan.segments()):
        # The order alternates, so that a trend favours neither; both get the same arrivals.
        names = list(mixes) if number % 2 == 0 else list(reversed(mixes))
        for name in names:
            yield (
                name,
                number,
                Period(
                    mixes[name],
                    segments,
                    plan.arrivals,
                    plan.seed + 1 + number,
                    plan.slice_s,
                    plan.users,
                ),
            )


def _line(name: ArmName, number: int, result: PeriodResult) -> str:
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


def check_disagreement(
    plan: Plan, objective: Objective, models: Sequence[Known] | Sequence[Subject]
) -> None:
    """Refuse to judge disagreement where it is of no row, or counted otherwise.

    Args:
        plan: Of the test.
        objective: What is judged.
        models: Those of the plan.

    Raises:
        ConfigError: Saying why.
    """
    if objective.disagreement is None:
        return
    routed = any(choice.router != "off" for choice in plan.choices)
    if not routed or not any(model.has_router for model in models):
        raise ConfigError(
            "slo: disagreement is about rows the router stops early, and this mix has none: "
            "leave it out, or choose a model with a router and --router on"
        )
    for model in models:
        if model.unit == "queries":
            raise ConfigError(
                f"slo: the certificate of {model.name} counts queries (task.top), and a "
                "load test sends single rows: leave disagreement out"
            )


def about(subject: Subject) -> dict[str, Any]:
    """A model in words for a report."""
    return {
        "backend": subject.running.backend,
        "provider": subject.running.provider,
        "precision": subject.running.precision,
        "checkpoint": subject.running.checkpoint,
        "files": subject.files,
        "depth": subject.pool.depth,
        "rows": len(subject.pool.rows),
        "risks": subject.risks,
        "reasons": subject.reasons,
        "disagreement_of_the_pool": subject.foreseen,
    }
