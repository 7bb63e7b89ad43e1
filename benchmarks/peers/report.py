"""The race's JSON as docs/peers.md: tables, and what had to be reached against what was."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from contenders import OURS, PEERS, Settings, load_of
from models import ROOT, ROWS

Runs = list[dict[str, Any]]
MEASURES = ("requests_per_s", "p50_s", "p99_s")

HEAD = """\
# Against other model servers

Made by `benchmarks/peers/run.py` from [peers.json](peers.json); do not edit by hand.

The same two models run behind skipserve and behind each peer. wrk drives them over loopback: one
row of real test data a request, JSON in and JSON out. Every peer serves the plain ONNX graph in
ONNX Runtime with skipserve's options. The plain graph holds no router that could slow a peer down.

- Before anything is timed, each server must give the right label for {rows} rows, sixteen at a
  time. Then it is driven for {warm_up} s, so that compilation at run time is over.
- Peers are compared with skipserve in groups of a few. In each round ({rounds} in all) every server
  of a group is driven for {seconds} s at each number of connections, one after the other.
- Figures are medians. *Ratios are skipserve ÷ peer, of the same round.* skipserve is ahead where
  requests/s are above 1 and p50 and p99 below 1.
- Settings are batching or none, then workers × threads of ONNX Runtime in each, once for up to 4
  connections and once for more ([settings.json](../benchmarks/peers/settings.json)). A batch has
  up to 16 requests; a peer waits 1 ms for them, skipserve takes what came in while its worker was
  busy. For every server, skipserve too, the settings are those with the most requests/s in a trial.
- Request logs are off everywhere. skipserve's metrics and evidence rows are on. A peer's metrics
  are off where it has a switch.

{machine}

To repeat it, use a machine that does nothing else. The environments take a few minutes the first
time:

```sh
skipserve build export/moons_residual.toml export/mnist1d_resnet.toml
python benchmarks/peers/run.py --write     # 20 minutes or so; goes on where it was stopped
python benchmarks/peers/run.py --peers ray # one peer again, beside skipserve
python benchmarks/peers/run.py --tune --fresh   # chooses settings again, 20 minutes or so
```
"""


def machine() -> str:
    """The machine in a sentence."""
    model = platform.processor() or "unknown CPU"
    with open("/proc/cpuinfo") as lines:  # noqa: PTH123
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Machine: {len(names)} cores of {names[0] if names else model}, {memory:.0f} GiB, server "
        f"and wrk on the same cores, Python {platform.python_version()}, {date.today()}."
    )


@dataclass(frozen=True)
class Point:
    """One contender at one number of connections: medians over the rounds."""

    runs: Runs

    def median(self, measure: str) -> float:
        return median(run[measure] for run in self.runs)

    @property
    def error(self) -> str | None:
        return next((run["error"] for run in self.runs if "error" in run), None)


@dataclass(frozen=True)
class Pair:
    """A peer and skipserve in the same group, at one number of connections."""

    peer: Point
    ours: Point

    def ratio(self, measure: str) -> float:
        """Median over the rounds of skipserve ÷ peer."""
        rounds = zip(self.ours.runs, self.peer.runs, strict=True)
        return median(ours[measure] / peer[measure] for ours, peer in rounds)


class Race:
    """What was measured, by model, contender and number of connections."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.groups: list[Runs] = list(state["groups"].values())
        self.connections: list[int] = state["asked"]["connections"]
        self.models = list(dict.fromkeys(run["model"] for runs in self.groups for run in runs))

    def routers(self, model: str) -> list[str]:
        runs = [run for group in self.groups for run in group if run["model"] == model]
        return sorted({run["router"] for run in runs if run["name"] == OURS}, reverse=True)

    def ours(self, model: str, router: str, connections: int) -> Point:
        """skipserve over all groups."""
        return Point([r for g in self.groups for r in _at(g, model, OURS, router, connections)])

    def pairs(self, model: str, router: str, connections: int) -> dict[str, Pair]:
        """By peer, those that answered in this group at this number of connections."""
        found = {}
        for group in self.groups:
            ours = Point(_at(group, model, OURS, router, connections))
            for name in PEERS:
                peer = Point(_at(group, model, name, "off", connections))
                if peer.runs:
                    found[name] = Pair(peer, ours)
        return found


def _at(group: Runs, model: str, name: str, router: str, connections: int) -> Runs:
    wanted = {"model": model, "name": name, "router": router, "connections": connections}
    return [run for run in group if wanted.items() <= run.items()]


def render(state: dict[str, Any]) -> str:
    """The whole document."""
    race = Race(state)
    asked = state["asked"]
    parts = [
        HEAD.format(
            rows=ROWS,
            rounds=asked["rounds"],
            warm_up=asked["warm_up_s"],
            seconds=asked["seconds"],
            machine=state["machine"],
        ),
        "## What had to be reached\n",
        *checks(race),
        "",
    ]
    for model in race.models:
        parts.append(f"## {model}\n")
        for connections in race.connections:
            parts += [f"{connections} connection{'s' * (connections > 1)}:\n"]
            parts += [*table(race, state, model, connections), ""]
        parts += failures(state, model)
    parts += ["## Versions\n", *versions(race), ""]
    return "\n".join(parts)


def table(race: Race, state: dict[str, Any], model: str, connections: int) -> Iterable[str]:
    routers = race.routers(model)
    titles = [f"router {router}: " if len(routers) > 1 else "" for router in routers]
    ratios = [f"{title}× {what}" for title in titles for what in ("req/s", "p50", "p99")]
    yield "| " + " | ".join(["server", "settings", "req/s", "p50 ms", "p99 ms", *ratios]) + " |"
    yield "|" + "---|" * (5 + len(ratios))
    settings = state["settings"][model]
    load = load_of(connections)
    for router, title in zip(routers, titles, strict=True):
        point = race.ours(model, router, connections)
        label = f"skipserve{', ' if title else ''}{title.removesuffix(': ')}"
        cells = [f"**{label}**", str(Settings(**settings[OURS][load])), *_figures(point)]
        yield "| " + " | ".join(cells + [""] * len(ratios)) + " |"
    by_router = [race.pairs(model, router, connections) for router in routers]
    for name, pair in by_router[0].items():
        cells = [PEERS[name].title, str(Settings(**settings[name][load])), *_figures(pair.peer)]
        for pairs in by_router:
            cells += [_ratio(pairs[name], measure) for measure in MEASURES]
        yield "| " + " | ".join(cells) + " |"


def _figures(point: Point) -> list[str]:
    if point.error:
        return [f"failed: {point.error}", "", ""]
    return [
        f"{point.median('requests_per_s'):,.0f}",
        f"{1e3 * point.median('p50_s'):.2f}",
        f"{1e3 * point.median('p99_s'):.2f}",
    ]


def _ratio(pair: Pair, measure: str) -> str:
    return "" if pair.peer.error or pair.ours.error else f"{pair.ratio(measure):.2f}"


def failures(state: dict[str, Any], model: str) -> Iterable[str]:
    problems = state["failures"].get(model, {})
    if problems:
        yield "Did not start with the settings named, or answered wrongly:\n"
        yield from (f"- {PEERS[name].title}: `{problem}`" for name, problem in problems.items())
        yield ""


def checks(race: Race) -> Iterable[str]:
    """Each aim, and by how much it was reached or missed."""
    yield "| aim | measured | |"
    yield "|---|---|---|"
    for connections in (16, 64):
        yield _least(race, "moons_residual", "off", connections, 1.0, "ahead of every peer")
    for measure in ("p50_s", "p99_s"):
        pair = race.pairs("moons_residual", "off", 1).get("fastapi")
        aim = f"moons_residual, 1 connection: {measure[:3]} no worse than FastAPI async"
        yield _verdict(aim, pair, lambda p, m=measure: p.ratio(m), lambda r: r <= 1.0)
    yield _least(race, "mnist1d_resnet", "on", 16, 3.0, "router on, 3 × every peer")


def _least(race: Race, model: str, router: str, connections: int, least: float, what: str) -> str:
    pairs = race.pairs(model, router, connections)
    good = {n: p for n, p in pairs.items() if not p.peer.error and not p.ours.error}
    aim = f"{model}, {connections} connections: {what} in requests/s"
    if not good:
        return f"| {aim} | not measured | |"
    ratios = {name: pair.ratio("requests_per_s") for name, pair in good.items()}
    below = sorted((ratio, PEERS[n].title) for n, ratio in ratios.items() if ratio <= least)
    ratio, title = min((ratio, PEERS[n].title) for n, ratio in ratios.items())
    missed = "; ".join(f"{r:.2f} × {t}" for r, t in below)
    measured = f"at least {ratio:.2f} × ({title})" if not below else missed
    return f"| {aim} | {measured} | {'missed' if below else 'reached'} |"


def _verdict(
    aim: str,
    pair: Pair | None,
    measured: Callable[[Pair], float],
    reached: Callable[[float], bool],
) -> str:
    if pair is None or pair.peer.error or pair.ours.error:
        return f"| {aim} | not measured | |"
    value = measured(pair)
    return f"| {aim} | {value:.2f} × | {'reached' if reached(value) else 'missed'} |"


def versions(race: Race) -> Iterable[str]:
    """What was installed beside each peer that was measured."""
    measured = {run["name"] for group in race.groups for run in group}
    for name, peer in PEERS.items():
        if name in measured:
            yield f"- {peer.title}: {', '.join(f'`{each}`' for each in peer.versions)}"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "peers.json"
    print(render(json.loads(source.read_text())))
