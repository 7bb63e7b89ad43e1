"""The comparison with other servers: how replies are read, failures and rates reported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

RACE = Path(__file__).parents[2] / "benchmarks" / "peers"
MODULES = ("contenders", "endpoints", "models", "report")


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of the race, opened as its script opens them."""
    monkeypatch.syspath_prepend(RACE)
    import contenders  # type: ignore[import-not-found]
    import endpoints  # type: ignore[import-not-found]
    import report  # type: ignore[import-not-found]

    yield SimpleNamespace(contenders=contenders, endpoints=endpoints, report=report)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "reply",
    [
        {"outputs": [{"label": 2, "probabilities": [0.1, 0.2, 0.7]}]},
        {"predictions": [{"label": 2}]},
        [{"label": 2}],
        {"outputs": [{"name": "probabilities", "shape": [1, 3], "data": [0.1, 0.2, 0.7]}]},
    ],
)
def test_the_label_is_found_in_every_contenders_reply(race: SimpleNamespace, reply: Any) -> None:
    assert race.contenders.label_of(reply) == 2


def test_a_label_may_be_the_name_of_a_class(race: SimpleNamespace) -> None:
    reply = {"outputs": [{"label": "spam", "probabilities": [0.1, 0.9]}]}
    assert race.contenders.label_of(reply, ("ham", "spam")) == 1


def test_a_failure_says_the_last_error_and_not_the_last_line(race: SimpleNamespace) -> None:
    log = "Traceback:\nModuleNotFoundError: No module named 'yaml'\n\nshutting down\n"
    assert race.endpoints.last_error(log) == "ModuleNotFoundError: No module named 'yaml'"
    assert race.endpoints.last_error("starting\nstopped\n") == "stopped"
    assert race.endpoints.last_error("") == "it said nothing"


def test_every_peer_has_a_server_and_pinned_requirements(race: SimpleNamespace) -> None:
    for peer in race.contenders.PEERS.values():
        assert (peer.folder / "server.py").is_file()
        assert all("==" in each for each in peer.versions)


def state(ours: dict[str, float], peer: float) -> dict[str, Any]:
    """A race of one peer and three rounds; the machine is twice as slow in the last."""
    settings = {"batch_size": 1, "workers": 1, "threads": 1}
    names = {"skipserve": {"few": settings, "many": settings}}
    names["fastapi"] = names["skipserve"]
    groups = {}
    for model, routers in {"moons_residual": ["off"], "mnist1d_resnet": ["on", "off"]}.items():
        speeds = [("skipserve", router, ours[router]) for router in routers]
        groups[model] = [
            {
                **{"model": model, "name": name, "router": router, "round": number},
                **{"connections": count, "requests_per_s": speed / slow},
                **{"p50_s": slow / speed, "p99_s": 2 * slow / speed},
            }
            for number, slow in enumerate((1, 1, 2))
            for count in (1, 4, 16, 64)
            for name, router, speed in [*speeds, ("fastapi", "off", peer)]
        ]
    return {
        "asked": {"rounds": 3, "seconds": 3, "connections": [1, 4, 16, 64], "warm_up_s": 5},
        "settings": {"moons_residual": names, "mnist1d_resnet": names},
        "failures": {"moons_residual": {"ray": "OSError: no"}},
        "machine": "Machine: any.",
        "groups": groups,
    }


def test_what_is_reached_is_told_from_what_is_missed(race: SimpleNamespace) -> None:
    text = race.report.render(state({"off": 1500.0, "on": 3500.0}, peer=1000.0))
    assert "16 connections: ahead of every peer in requests/s | at least 1.50 × (FastAPI" in text
    assert text.count("| reached |") == 5
    assert "OSError: no" in text
    assert "- FastAPI, async: `fastapi==" in text
    assert "- mosec:" not in text  # versions of what was measured alone
    text = race.report.render(state({"off": 500.0, "on": 2500.0}, peer=1000.0))
    assert "p50 no worse than FastAPI async | 2.00 × | missed |" in text
    assert "router on, 3 × every peer in requests/s | 2.50 × FastAPI, async | missed |" in text


def test_a_peer_that_failed_under_load_is_in_the_table_without_ratios(
    race: SimpleNamespace,
) -> None:
    failed = state({"off": 1500.0, "on": 3500.0}, peer=1000.0)
    for run in failed["groups"]["moons_residual"]:
        if run["name"] == "fastapi" and run["connections"] == 64:
            run["error"] = "Socket errors: timeout 3"
    text = race.report.render(failed)
    assert "failed: Socket errors: timeout 3" in text
    assert "64 connections: ahead of every peer in requests/s | not measured |" in text
