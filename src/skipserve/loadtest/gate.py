"""The verdict: PASS, FAIL, or INVALID where the run cannot tell.

INVALID  the client was the limit, samples are too few, or client and server count differently
FAIL     the run is sound and an objective is missed
PASS     the run is sound and every objective is met, percentiles up to the upper end of their
         interval
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from skipserve.intervals import rate
from skipserve.loadtest.percentiles import CONFIDENCE, percentile_interval, samples_for
from skipserve.loadtest.results import Arm, Check, Verdict
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.tally import Tally

EXIT: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INVALID": 2}
# A greenlet loop is full before its core is: replies wait for it.
BUSIEST = 0.85
OFFERED = 0.95
# What the client may add to a percentile: this part of its limit, or this much.
LAG_SHARE = 0.2
LAG_FLOOR_S = 0.005


def judge(objective: Objective, asked: Arm, baseline: Arm | None) -> list[Check]:
    """Check the objectives and whether the client could tell."""
    checks = [_percentile(asked.total, *one) for one in objective.percentiles]
    if objective.errors is not None:
        checks.append(_errors(asked.total, objective.errors))
    if objective.disagreement is not None:
        checks.append(_disagreement(asked.total, objective.disagreement))
    checks.append(_answers([arm for arm in (asked, baseline) if arm is not None]))
    checks += _client(asked, [percent for percent, _ in objective.percentiles], objective)
    return checks


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """INVALID before FAIL before PASS."""
    found = {check.verdict for check in checks}
    for verdict in ("INVALID", "FAIL"):
        if verdict in found:
            return verdict
    return "PASS"


def compare_counts(answered: Counter[str], unanswered: Counter[str], served: Counter[str]) -> Check:
    """Client and server must have counted the same 200s.

    Replies that are no 200 may come from TorchServe's frontend, which the workers do not see.

    Args:
        answered: 200s the client saw, by model.
        unanswered: Requests the client gave up waiting for; the server may have answered them.
        served: 200s the workers counted, by model.
    """
    off = {
        model: (answered[model], served[model])
        for model in {*answered, *served}
        if not answered[model] <= served[model] <= answered[model] + unanswered[model]
    }
    if not off:
        return Check("counts", "PASS", f"client and server both count {answered.total():,} replies")
    text = "; ".join(f"{m}: client {c:,}, server {s:,}" for m, (c, s) in sorted(off.items()))
    return Check(
        "counts", "INVALID", f"they count differently ({text}): somebody else used the service?"
    )


def _percentile(tally: Tally, percent: float, limit_s: float) -> Check:
    name = f"p{percent:g}"
    count, needed = len(tally.corrected), samples_for(percent)
    if count < needed:
        return Check(
            name, "INVALID", f"{count} requests are too few for an interval, it takes {needed}"
        )
    found = percentile_interval(tally.corrected, percent)
    text = (
        f"{found.value * 1e3:.3g} ms, at most {found.high * 1e3:.3g} ms with 95 % confidence; "
        f"asked: {limit_s * 1e3:g} ms"
    )
    return Check(name, "PASS" if found.high <= limit_s else "FAIL", text)


def _errors(tally: Tally, limit: float) -> Check:
    if tally.requests == 0:
        return Check("errors", "INVALID", "no request was sent")
    share = tally.failed / tally.requests
    text = f"{tally.failed} of {tally.requests:,} requests failed; asked: at most {limit:.3%}"
    if tally.failures:
        text += f"; most often: {tally.failures.most_common(1)[0][0]}"
    return Check("errors", "PASS" if share <= limit else "FAIL", text)


def _disagreement(tally: Tally, limit: float) -> Check:
    if tally.routed_rows == 0:
        return Check("disagreement", "INVALID", "the service routed no row: its router is off")
    found = rate(tally.disagreements, tally.routed_rows, 2 * CONFIDENCE - 1)
    text = (
        f"{tally.disagreements} of {tally.routed_rows:,} rows, {found.value:.2%} "
        f"({found.low:.2%} to {found.high:.2%}); asked: at most {limit:.2%}"
    )
    # The certificate promises the rate; a run of seconds can only contradict it.
    return Check("disagreement", "PASS" if found.low <= limit else "FAIL", text)


def _answers(arms: Sequence[Arm]) -> Check:
    wrong = sum(arm.total.wrong for arm in arms)
    replies = sum(arm.total.requests for arm in arms)
    if not wrong:
        return Check("answers", "PASS", f"none of {replies:,} replies was wrong or malformed")
    kinds = Counter[str]()
    for arm in arms:
        kinds += Counter(
            {k: n for k, n in arm.total.failures.items() if k.startswith(("wrong", "malformed"))}
        )
    return Check("answers", "FAIL", f"{wrong} of {replies:,}: {kinds.most_common(1)[0][0]}")


def _client(asked: Arm, percents: Sequence[float], objective: Objective) -> list[Check]:
    busy = f"the client took up to {asked.busiest:.0%} of a core"
    checks = [Check("client", "PASS" if asked.busiest <= BUSIEST else "INVALID", busy)]
    if asked.scheduled == 0:
        return checks
    offered = asked.on_time / asked.scheduled
    checks.append(
        Check(
            "offered",
            "PASS" if offered >= OFFERED else "INVALID",
            f"{asked.on_time:,} of {asked.scheduled:,} due requests were sent in time"
            + (
                f"; {asked.exhausted:,} found every connection waiting for a reply (--connections)"
                if asked.exhausted
                else ""
            ),
        )
    )
    limits = dict(objective.percentiles)
    for percent in percents or [50.0]:
        lag_s = asked.total.lag.percentile(percent)
        limit_s = max(LAG_FLOOR_S, LAG_SHARE * limits.get(percent, 0.0))
        late = (
            f"p{percent:g} of the client's own delay is {lag_s * 1e3:.2f} ms, "
            f"at most {limit_s * 1e3:g} ms allowed"
        )
        checks.append(Check(f"lag p{percent:g}", "PASS" if lag_s <= limit_s else "INVALID", late))
    return checks
