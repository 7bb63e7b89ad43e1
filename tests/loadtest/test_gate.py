"""PASS, FAIL or INVALID: each for its own reason."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from skipserve.loadtest.gate import compare_counts, judge, verdict_of
from skipserve.loadtest.payloads import Choice
from skipserve.loadtest.periods import Part, PeriodResult
from skipserve.loadtest.results import Arm
from skipserve.loadtest.slo import parse_slo
from skipserve.loadtest.tally import Tally

SLO = "p50=15ms,p99=50ms,errors=0,disagreement=0.01"


def arm(name="asked", count=1000, latency_s=0.010, lag_s=1e-4, cpu_s=0.2, on_time=None, **tallied):
    tally = Tally()
    tally.requests = tally.answered = tally.routed_rows = count
    for number in range(count):
        tally.corrected.record(latency_s * (1 + number / count))
        tally.uncorrected.record(latency_s)
        tally.lag.record(lag_s)
    for key, value in tallied.items():
        setattr(tally, key, value)
    part = Part(0, 0, tally.to_json())
    period = PeriodResult(
        [part], count, count if on_time is None else on_time, 0, 1.0, 1.0, cpu_s, False
    )
    return Arm(name, [Choice("m")], [period], 1.0)


def judged(slo=SLO, baseline=None, **asked):
    checks = judge(parse_slo(slo), arm(**asked), baseline)
    return verdict_of(checks), {check.what: check for check in checks}


def test_a_sound_run_within_the_objective_passes():
    verdict, checks = judged("p50=16ms,p99=50ms,errors=0,disagreement=0.01")
    assert verdict == "PASS", checks


def test_a_percentile_passes_only_with_the_upper_end_of_its_interval():
    verdict, checks = judged("p50=15.1ms")  # the median is 15.0 ms, its upper end 15.3
    assert verdict == "FAIL"
    assert checks["p50"].found.startswith("15 ms, at most 15.3 ms")


@pytest.mark.parametrize(
    ("asked", "what", "says"),
    [
        ({"failures": Counter({"status 503": 1})}, "errors", "1 of 1,000 .* often: status 503"),
        ({"latency_s": 0.1}, "p99", "asked: 50 ms"),
        ({"disagreements": 30}, "disagreement", "30 of 1,000 rows, 3.00%"),
        ({"failures": Counter({"wrong answer: x": 2})}, "answers", "2 of 1,000: wrong answer"),
    ],
)
def test_a_missed_objective_fails(asked, what, says):
    verdict, checks = judged(**asked)
    assert verdict == "FAIL"
    assert checks[what].verdict == "FAIL"
    assert re.search(says, checks[what].found)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"cpu_s": 0.95}, "client"),
        ({"lag_s": 0.03}, "lag p99"),
        ({"on_time": 900}, "offered"),
        ({"count": 298}, "p99"),
        ({"count": 0}, "errors"),
        ({"routed_rows": 0}, "disagreement"),
    ],
)
def test_a_run_that_cannot_tell_is_invalid_even_if_it_would_fail(asked, what):
    verdict, checks = judged(latency_s=0.1, **asked)
    assert verdict == "INVALID"
    assert checks[what].verdict == "INVALID"


def test_a_disagreement_within_chance_of_the_limit_passes():
    assert judged("disagreement=0.01", disagreements=14)[0] == "PASS"
    assert judged("disagreement=0.01", disagreements=17)[0] == "FAIL"


def test_a_wrong_answer_of_the_baseline_fails_and_its_overload_does_not():
    wrong = arm("baseline", failures=Counter({"wrong answer: another label": 1}))
    assert judged("errors=0", wrong)[0] == "FAIL"
    overloaded = arm("baseline", latency_s=5.0, failures=Counter({"status 503": 900}))
    assert judged("p50=16ms,errors=0", overloaded)[0] == "PASS"


@pytest.mark.parametrize(
    ("answered", "unanswered", "served", "verdict"),
    [
        (100, 0, 100, "PASS"),
        (100, 0, 101, "INVALID"),
        (100, 0, 99, "INVALID"),
        (100, 3, 102, "PASS"),
        (100, 3, 104, "INVALID"),
    ],
)
def test_client_and_server_must_count_alike(answered, unanswered, served, verdict):
    check = compare_counts(Counter(m=answered), Counter(m=unanswered), Counter(m=served))
    assert check.verdict == verdict
