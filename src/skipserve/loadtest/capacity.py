"""The highest rate that still meets the objective: bracketing, then bisection, with repeats."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Sequence

import msgspec

from skipserve.loadtest.client import Client
from skipserve.loadtest.gate import judge, verdict_of
from skipserve.loadtest.payloads import Choice
from skipserve.loadtest.percentiles import samples_for
from skipserve.loadtest.periods import Period, Setup
from skipserve.loadtest.plan import Plan, mixes_of
from skipserve.loadtest.pools import Subject
from skipserve.loadtest.results import Arm, ArmName
from skipserve.loadtest.session import Say, check_disagreement, stopping
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.target import Target

REPEATS = 3
# Precision of the search: the failing rate over the holding rate, at most.
TOLERANCE = 1.06
LOWEST, HIGHEST = 1.0, 100_000.0
# A trial is as short as USUAL_TRIAL_S if that gives its percentiles an upper end.
USUAL_TRIAL_S, LONGEST_TRIAL_S = 60.0, 600.0
FEWEST_REQUESTS = 100
# Standard deviations by which a trial may get fewer requests than it expects.
SPREAD = 4


class RateTrial(msgspec.Struct, frozen=True):
    """One run at one rate.

    Attributes:
        rate: Requests a second.
        p50_s: From the moment due.
        p99_s: The same.
        skip_rate: Share of the blocks left out, or ``None``.
        met: Whether the objective was met.
        reason: The check that was not, if one was not.
    """

    rate: float
    p50_s: float
    p99_s: float
    skip_rate: float | None
    met: bool
    reason: str


class Capacity(msgspec.Struct, frozen=True):
    """The result of the search for one mix.

    Attributes:
        name: As asked, or the baseline.
        highest: Rate that met the objective in most repeats; 0 if none did.
        lowest: Rate below which nothing is tried.
        failing: Lowest rate above it that did not; ``None`` if the search ended before one.
        trials: Every run, in order.
        complete: Whether the search came to its end.
    """

    name: ArmName
    highest: float
    lowest: float
    failing: float | None
    trials: list[RateTrial]
    complete: bool


def lowest_rate(objective: Objective) -> float:
    """Lowest rate, in requests a second, at which a trial can judge an objective.

    Below it even the longest trial has too few requests for the highest percentile.
    """
    return max(LOWEST, _enough(objective) / LONGEST_TRIAL_S)


def trial_s(objective: Objective, rate: float, shortest_s: float) -> float:
    """Seconds of a trial.

    Args:
        objective: To judge.
        rate: Requests a second.
        shortest_s: That a trial lasts at any rate, but for ``USUAL_TRIAL_S``.
    """
    # With the fewest samples the interval ends at the slowest, which is too strict a judge.
    requests = max(FEWEST_REQUESTS, 3 * _needed(objective))
    usual_s = min(max(shortest_s, requests / rate), USUAL_TRIAL_S)
    return max(usual_s, _enough(objective) / rate)


def _needed(objective: Objective) -> int:
    """Requests that give every percentile of an objective an upper end."""
    return max((samples_for(percent) for percent, _ in objective.percentiles), default=1)


def _enough(objective: Objective) -> float:
    """Requests to expect, so that hardly ever fewer arrive than are needed."""
    needed = _needed(objective)
    return needed + SPREAD * math.sqrt(needed)


def search(start: float, lowest: float = LOWEST) -> Generator[float, bool, None]:
    """Generator of rates to try; receives whether each holds: doubling or halving, then bisection.

    Args:
        start: First rate, requests a second.
        lowest: No rate below it is tried.
    """
    low, high, rate = 0.0, 0.0, max(start, lowest)
    while not (low and high):
        if (yield rate):
            low, rate = rate, rate * 2
        else:
            high, rate = rate, max(rate / 2, lowest)
        if (rate > HIGHEST and not high) or (high == lowest and not low):
            return
    while high / low > TOLERANCE:
        middle = (low * high) ** 0.5
        if (yield middle):
            low = middle
        else:
            high = middle


def find_capacity(
    plan: Plan,
    objective: Objective,
    target: Target,
    subjects: Sequence[Subject],
    stop: threading.Event,
    say: Say,
) -> list[Capacity]:
    """Search for the mix as asked and for the baseline, in turns, so that both see one machine.

    A rate holds if it does in two of three repeats. A trial in which the client was the limit
    counts as one that does not hold, and says so.

    Raises:
        ConfigError: If disagreement cannot be judged.
    """
    check_disagreement(plan, objective, subjects)
    mixes = mixes_of(plan, subjects)
    pools = [subject.pool for subject in subjects]
    trials: dict[ArmName, list[RateTrial]] = {name: [] for name in mixes}
    verdicts: dict[ArmName, dict[float, bool]] = {name: {} for name in mixes}
    lowest = lowest_rate(objective)
    searches = {name: search(plan.rate, lowest) for name in mixes}
    rates = {name: next(one) for name, one in searches.items()}
    setup = Setup(target.host, pools, plan.connections, plan.timeout_s)
    with Client(setup) as client, stopping(client, stop):
        for name in mixes:
            client.run(plan.warm_up(mixes[name]))
        while rates and not stop.is_set():
            for name in list(rates):
                rate = rates[name]
                done = [one.met for one in trials[name] if one.rate == rate]
                trial = _trial(client, plan, objective, name, mixes[name], rate, len(done))
                if stop.is_set():
                    break
                trials[name].append(trial)
                say(_line(name, trial))
                done.append(trial.met)
                holds = done.count(True) > REPEATS // 2
                if not holds and done.count(False) <= REPEATS // 2:
                    continue
                verdicts[name][rate] = holds
                try:
                    rates[name] = searches[name].send(holds)
                except StopIteration:
                    del rates[name]
    found = []
    for name in mixes:
        held = [rate for rate, met in verdicts[name].items() if met]
        highest = max(held, default=0.0)
        above = [rate for rate, met in verdicts[name].items() if not met and rate > highest]
        failing, complete = min(above, default=None), name not in rates
        found.append(Capacity(name, highest, lowest, failing, trials[name], complete))
    return found


def _trial(
    client: Client,
    plan: Plan,
    objective: Objective,
    name: ArmName,
    mix: list[Choice],
    rate: float,
    repeat: int,
) -> RateTrial:
    duration_s = trial_s(objective, rate, plan.duration_s)
    period = Period(
        mix, [(duration_s, rate)], plan.arrivals, plan.seed + 1 + repeat, slice_s=duration_s
    )
    arm = Arm(name, mix, [client.run(period)], duration_s)
    if name == "baseline":  # it routes nothing, and cannot disagree
        objective = Objective(objective.percentiles, objective.errors)
    checks = judge(objective, arm, None)
    missed = [check for check in checks if check.verdict != "PASS"]
    # Faults of the client come first.
    missed.sort(key=lambda check: check.verdict != "INVALID")
    tally = arm.total
    return RateTrial(
        rate,
        tally.corrected.percentile(50),
        tally.corrected.percentile(99),
        tally.skip_rate,
        verdict_of(checks) == "PASS",
        f"{missed[0].what}: {missed[0].found}" if missed else "",
    )


def _line(name: ArmName, trial: RateTrial) -> str:
    what = "as asked" if name == "asked" else "baseline"
    return (
        f"{what}: {trial.rate:>8.1f}/s p50 {trial.p50_s * 1e3:.2f} ms, "
        f"p99 {trial.p99_s * 1e3:.2f} ms, {'holds' if trial.met else trial.reason}"
    )
