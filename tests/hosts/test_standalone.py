"""Processes without a launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from skipserve.artifacts.archive import unpack
from skipserve.hosts.overdue import Overdue
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.series import REQUESTS


def test_a_batch_hangs_once_it_took_longer_than_readiness_allows(
    routed_project: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = routed_project[0] / "model_store" / "small.mar"
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    overdue = Overdue()
    watch = overdue.of(unpack(archive, tmp_path, {"response_timeout_s": 90}))
    assert not overdue.hanging()
    watch.begin()
    now_s += 15
    assert not overdue.hanging()
    now_s += 1
    assert overdue.hanging() == "a batch of small runs for more than 15 s"
    watch.end()
    assert not overdue.hanging()


def test_what_the_process_counted_before_is_not_counted_again() -> None:
    counted = REQUESTS.labels("alone", "200")
    counted.inc(3)
    metrics = Exposition()
    counted.inc(2)
    found = metrics.samples("counter_*.db")["skipserve_requests_total"]
    assert [value for labels, value in found if labels["model"] == "alone"] == [2]
    assert b'skipserve_requests_total{code="200",model="alone"} 2.0' in metrics.text()[0]
