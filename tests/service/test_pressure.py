"""Depth under overload: a simulated queue, the service, and the real server."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from running import JSON, Running, cli, serving, until

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import Risk
from skipserve.runtime.engine import Engine
from skipserve.safety.switch import ControlState
from skipserve.service.in_force import InForce
from skipserve.service.pressure import LONG_S, UP_S, Pressure


def simulated(
    rates: list[tuple[float, float]], capacity: list[float]
) -> list[tuple[float, int, float]]:
    """A queue with batches of at most 16, fed at random: time, level and wait of each batch.

    Args:
        rates: Seconds, and requests a second for so long.
        capacity: Requests a second that each level can answer.
    """
    pick = random.Random(0)
    arrivals, now_s = list[float](), 0.0
    for seconds, rate in rates:
        end_s = now_s + seconds
        while rate and (now_s := now_s + pick.expovariate(rate)) < end_s:
            arrivals.append(now_s)
        now_s = end_s
    pressure, seen, free_s, first = Pressure(len(capacity) - 1), [], 0.0, 0
    while first < len(arrivals):
        begin_s = max(free_s, arrivals[first])
        last = first
        while last < len(arrivals) and arrivals[last] <= begin_s and last - first < 16:
            last += 1
        pressure.see(begin_s, begin_s - arrivals[first])
        seen.append((begin_s, pressure.level, begin_s - arrivals[first]))
        free_s = begin_s + (last - first) / capacity[pressure.level]
        first = last
    return seen


CAPACITY = [1000.0, 1300.0, 1600.0]


def test_below_capacity_it_stays_where_it_is() -> None:
    assert {level for _, level, _ in simulated([(20, 800)], CAPACITY)} == {0}


def test_a_tenth_too_much_is_answered_in_time_by_the_next_risk() -> None:
    seen = simulated([(2, 500), (30, 1100)], CAPACITY)
    waits = sorted(wait for at, _, wait in seen if at > 3)
    assert waits[int(0.99 * len(waits))] < 0.1
    assert max(waits) < 0.2
    # Staying there would not do.
    assert max(wait for *_, wait in simulated([(2, 500), (30, 1100)], CAPACITY[:1])) > 1.0


def test_it_comes_back_and_only_once_the_queue_is_short() -> None:
    seen = simulated([(5, 1500), (30, 300)], CAPACITY)
    assert max(level for _, level, _ in seen) == 2
    assert {level for at, level, _ in seen if at > 25} == {0}
    moves = [
        (at, level)
        for (at, level, _), (_, was, _) in zip(seen[1:], seen, strict=False)
        if level != was
    ]
    assert all(
        abs(level - was) == 1 for (_, level), (_, was) in zip(moves[1:], moves, strict=False)
    )


def test_it_does_not_swing() -> None:
    """What comes back too soon waits longer the next time."""
    seen = simulated([(60, 1100)], CAPACITY)
    levels = [level for _, level, _ in seen]
    falls = sum(now < was for now, was in zip(levels[1:], levels, strict=False))
    assert falls <= 10


def test_an_hour_without_requests_is_a_short_queue() -> None:
    pressure = Pressure(2)
    for i in range(200):
        pressure.see(i * 0.01, 1.0)
    assert pressure.level == 2
    pressure.see(3600.0, 0.0)
    assert pressure.level == 0


def test_a_slow_batch_alone_changes_nothing() -> None:
    pressure = Pressure(1)
    assert not pressure.see(0.0, 5.0)
    assert not pressure.see(UP_S / 2, 5.0)
    assert not pressure.see(UP_S / 2 + 0.001, 0.0)
    assert not pressure.see(2 * UP_S, 5.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.1)), max_size=200), st.integers(0, 3))
@settings(max_examples=examples(100))
def test_it_is_never_beyond_the_highest_nor_below_rest(
    gaps: list[tuple[float, float]], highest: int
) -> None:
    pressure, now_s = Pressure(highest), 0.0
    for gap_s, waited_s in gaps:
        now_s += gap_s
        before = pressure.level
        changed = pressure.see(now_s, waited_s)
        assert 0 <= pressure.level <= highest
        assert changed == (pressure.level != before)
        if pressure.level > before:
            assert waited_s > LONG_S


@pytest.fixture(scope="module")
def routed(routed_project: tuple[Path, list[str]]) -> Engine:
    return Engine(open_artifact(routed_project[0] / "artifacts" / "small"), provider="cpu")


def pressed(in_force: InForce, now_s: float = 0.0) -> list[float | None]:
    """Risks that come into force while requests wait long."""
    found = [in_force.now.risk]
    for i in range(100):
        if in_force.waited(now_s + i * UP_S, 1.0):
            found.append(in_force.now.risk)
    return found


def test_it_goes_along_the_certified_risks_and_no_further(routed: Engine) -> None:
    held = sorted(routed.certified())
    assert held == [0.02, 0.05]
    for base, most, expected in (
        (0.02, 0.05, [0.02, 0.05]),
        (None, 0.05, [None]),
        (0.02, 0.049, [0.02]),
        (0.05, 0.9, [0.05]),
        (0.02, None, [0.02]),
        (None, 0.001, [None]),
    ):
        in_force = InForce(routed, ServingConfig(risk=base, overload_risk=most))
        assert pressed(in_force) == expected


def test_who_names_a_risk_or_wants_full_depth_gets_it(routed: Engine) -> None:
    in_force = InForce(routed, ServingConfig(risk=0.02, overload_risk=0.05))
    pressed(in_force)
    assert in_force.resolve(None).risk == in_force.resolve("on").risk == 0.05
    assert in_force.resolve("off").risk is None
    assert in_force.resolve(Risk(0.02)).risk == 0.02
    # And what an operator or the alarm switches off is off.
    in_force.follow(ControlState("disabled"))
    assert in_force.now.risk is None
    assert pressed(in_force, 100.0) == [None]
    in_force.follow(ControlState("on"))
    assert in_force.now.risk == 0.02


@pytest.mark.parametrize("risk", [None, 0.02])
def test_an_overload_risk_without_a_risk_is_warned_of(
    routed_project: tuple[Path, list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    risk: float | None,
) -> None:
    archive = routed_project[0] / "model_store" / "small.mar"
    unpack(archive, tmp_path, {"risk": risk, "overload_risk": 0.05})
    warned = "small: --overload-risk has no effect: [serving] of its build file names no risk"
    assert (warned in caplog.messages) == (risk is None)


@pytest.fixture(scope="module")
def server(
    routed_project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One request a batch, so that a dozen clients with a thousand rows each make a queue."""
    root = tmp_path_factory.mktemp("overloaded") / "project"
    shutil.copytree(routed_project[0], root, ignore=shutil.ignore_patterns("*.log"))
    file = root / "export" / "small.toml"
    text = file.read_text().replace("\nrisk = 0.05", "\nrisk = 0.02\noverload_risk = 0.05")
    file.write_text(text)
    package = cli("package", "export/small.toml")
    subprocess.run(package, cwd=root, check=True, capture_output=True)
    with serving(root) as running:
        yield running


def ask(server: Running, rows: int = 1, **parameters: object) -> tuple[object, str | None]:
    """The risk in force, as the body and the headers say it."""
    body = {"inputs": [[0.5, 0.5]] * rows, "parameters": parameters}
    status, headers, content = server.send("POST", "/predictions/small", body, **JSON)
    assert status == 200
    return json.loads(content).get("risk"), headers.get("x-skipserve-risk")


def in_force(server: Running) -> float:
    return gauge(server, "skipserve_risk_in_force_ratio")


def gauge(server: Running, name: str) -> float:
    found = re.search(rf'^{name}{{.*model="small".*}} (\S+)$', server.get("/metrics"), re.M)
    assert found is not None
    return float(found[1])


def test_under_load_it_moves_says_so_and_comes_back(server: Running) -> None:
    assert ask(server) == (0.02, "0.02")
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            ask(server, rows=1000)

    with ThreadPoolExecutor(12) as clients:
        loading = [clients.submit(load) for _ in range(12)]
        try:
            # Other work may take the cores from the clients: then the queue is short for a second.
            until(lambda: ask(server) == (0.05, "0.05") and in_force(server) == 0.05)
            assert ask(server, router={"risk": 0.02}) == (0.02, "0.02")
            assert ask(server, router="off") == (None, None)
        finally:
            stop.set()
        for one in loading:
            one.result()
    until(lambda: ask(server) == (0.02, "0.02"))
    assert in_force(server) == 0.02
    assert gauge(server, "skipserve_certified_risk_ratio") == 0.02
    moved = re.findall(
        r'skipserve_overload_moves_total{model="small",to="(.*)"} (\S+)', server.get("/metrics")
    )
    assert {to for to, times in moved if float(times) >= 1} == {"up", "down"}
    assert "requests wait; those that name no risk get risk 0.05" in server.printed
