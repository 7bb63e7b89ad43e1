"""Comparing runs: real differences are found, and noise seldom is."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from skipserve.errors import LoadTestError
from skipserve.loadtest.compare import compare_reports, ratio_intervals
from skipserve.loadtest.payloads import Choice
from skipserve.loadtest.periods import Part, PeriodResult
from skipserve.loadtest.results import Arm, Check, Report, read_report, write_report
from skipserve.loadtest.tally import Tally


def slices(rng, scale=1.0, count=20, requests=100):
    """Slices whose requests share what slows their second."""
    made = []
    for _ in range(count):
        tally = Tally()
        for latency_s in rng.gamma(4, 0.002, requests) * rng.lognormal(0, 0.1) * scale:
            tally.corrected.record(latency_s)
        made.append(tally)
    return made


def report(tallies) -> Report:
    parts = [Part(number, 0, tally.to_json()) for number, tally in enumerate(tallies)]
    period = PeriodResult(parts, 1, 1, 0, 20.0, 20.0, 1.0, False)
    arm = Arm("asked", [Choice("m")], [period], 1.0)
    return Report("PASS", [Check("p50", "PASS", "")], False, "now", {}, {}, {}, [arm])


@pytest.mark.slow
def test_no_difference_is_seldom_taken_for_one():
    runs = 40
    alarms = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        ((low, high),) = ratio_intervals(slices(rng), slices(rng), [50.0], seed)
        alarms += not low <= 1 <= high
    # 1 %, and what a bootstrap of twenty slices adds to it.
    assert alarms <= 4


@pytest.mark.parametrize(("scale", "verdict"), [(1.3, "slower"), (0.7, "faster")])
def test_a_difference_is_found(scale, verdict):
    rng = np.random.default_rng(0)
    changes = compare_reports(report(slices(rng)), report(slices(rng, scale)))
    assert changes[0].verdict == verdict
    assert changes[0].low < scale < changes[0].high
    assert str(changes[0]).startswith(f"p50, as asked: {verdict}")


def test_a_few_seconds_cannot_tell():
    rng = np.random.default_rng(0)
    changes = compare_reports(report(slices(rng, count=3)), report(slices(rng, 3.0)))
    assert changes[0].verdict.startswith("cannot tell")


def test_a_report_is_read_as_it_was_written(tmp_path):
    made = report(slices(np.random.default_rng(0), count=3))
    write_report(tmp_path / "run.json", made, {})
    read = read_report(tmp_path / "run.json")
    assert read.asked.total.corrected.encode() == made.asked.total.corrected.encode()
    assert msgspec.to_builtins(read) == msgspec.to_builtins(made)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "not the JSON report"),
        (b"{}", "not the JSON report"),
        (b"[1]", "not the JSON report"),
        ("version", "version 9, expected 2"),
        ("histogram", "not an encoded HDR histogram"),
    ],
)
def test_a_damaged_report_is_an_error(tmp_path, content, says):
    file = tmp_path / "old.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        values = msgspec.to_builtins(report(slices(np.random.default_rng(0), count=1)))
        if content == "version":
            values["version"] = 9
        else:
            values["arms"][0]["periods"][0]["parts"][0]["tally"]["corrected"] = "x"
        file.write_bytes(msgspec.json.encode(values))
    with pytest.raises(LoadTestError, match=says):
        read_report(file)
