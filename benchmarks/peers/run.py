"""The race: the same two models behind skipserve and behind each peer, driven by wrk in turn.

Peers run in groups beside skipserve, and in every round each connection count drives all of a group
one after the other, so that a noisy machine is noisy for all of them. What is done is kept in
.build/peers/race.json: run it again to go on where it stopped. Writes docs/peers.md and
docs/peers.json when every group is done; ends with one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import psutil
from contenders import OURS, PEERS, Settings, load_of
from endpoints import Endpoint, OurServer, PeerServer, WillNotServe
from models import NAMES, ROOT, WORK, RacedModel, prepare
from report import machine, render

sys.path.insert(0, str(ROOT / "benchmarks"))
from wrk import drive

STATE = WORK / "race.json"
CHOSEN = Path(__file__).parent / "settings.json"
# Long enough for what compiles itself as it runs.
WARM_UP_CONNECTIONS, WARM_UP_S = 16, 5
TRIAL_WARM_UP_S = 2
ALONE, TWO_WORKERS, TWO_THREADS = Settings(), Settings(workers=2), Settings(threads=2)
# Workers that share sixteen connections evenly fill their batches without waiting.
ONE_BATCHED = Settings(16, 1)
BATCHED = [Settings(4, 4), Settings(8, 2), ONE_BATCHED, Settings(16, 2)]


def main() -> None:
    options = _options()
    if options.tune:
        tune(options)
    else:
        race(options)


def race(options: argparse.Namespace) -> None:
    """Every group of peers beside skipserve, on every model; then the report."""
    asked = {key: getattr(options, key) for key in ("rounds", "seconds", "connections")}
    asked["warm_up_s"] = WARM_UP_S
    chosen = json.loads(CHOSEN.read_text())
    state: dict[str, Any] = {"asked": asked, "settings": chosen, "groups": {}, "failures": {}}
    if STATE.is_file() and not options.fresh:
        kept = json.loads(STATE.read_text())
        if kept["asked"] == asked and kept["settings"] == chosen:
            state = kept
            print(f"going on with {STATE}; --fresh begins anew")
    state["machine"] = machine()
    for name in options.models:
        model = prepare(name)
        for peers in _chunks(options.peers, options.together):
            group = f"{name}: {', '.join(peers)}"
            if group not in state["groups"]:
                print(f"\n{group}", flush=True)
                state["groups"][group] = race_group(model, peers, state, options)
                STATE.write_text(json.dumps(state, indent=1))
    text = render(state)
    print(text)
    if options.write:
        (ROOT / "docs" / "peers.md").write_text(text)
        (ROOT / "docs" / "peers.json").write_text(json.dumps(state, indent=1) + "\n")
    print(json.dumps({"benchmark": "peers", **{k: state[k] for k in ("asked", "failures")}}))


def race_group(
    model: RacedModel, peers: list[str], state: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    chosen = {name: _read(state["settings"][model.name][name]) for name in [OURS, *peers]}
    runs = []
    with contextlib.ExitStack() as stack:
        servers = _start(stack, model, chosen, options.port, state["failures"])
        print(f"idle, the machine is {psutil.cpu_percent(2.0):.0f} % busy", flush=True)
        for endpoint in servers.values():
            for bodies in endpoint.bodies.values():
                _drive(endpoint, bodies, WARM_UP_CONNECTIONS, WARM_UP_S)
        for number in range(options.rounds):
            for connections in options.connections:
                load = load_of(connections)
                for name in [name for name in chosen if (name, chosen[name][load]) in servers]:
                    endpoint = servers[name, chosen[name][load]]
                    for router, bodies in endpoint.bodies.items():
                        run = _drive(endpoint, bodies, connections, options.seconds)
                        print(f"{number} {connections:>3} {name:<10} {router:<3} {run}", flush=True)
                        point = {"model": model.name, "name": name, "router": router}
                        runs.append({**point, "round": number, "connections": connections, **run})
    return runs


def _start(
    stack: contextlib.ExitStack,
    model: RacedModel,
    chosen: dict[str, dict[str, Settings]],
    first_port: int,
    failures: dict[str, dict[str, str]],
) -> dict[tuple[str, Settings], Endpoint]:
    wanted = [
        (name, each) for name, loads in chosen.items() for each in dict.fromkeys(loads.values())
    ]
    started: dict[tuple[str, Settings], OurServer | PeerServer] = {}
    endpoints = {}
    problems = failures.setdefault(model.name, {})
    for name in chosen:
        problems.pop(name, None)
    stack.callback(_close, started)
    # All begin to start before the first is waited for.
    for index, (name, settings) in enumerate(sorted(wanted, key=lambda w: w[0] == OURS)):
        try:
            started[name, settings] = _open(model, name, settings, first_port + 10 * index)
        except WillNotServe as error:
            problems[name] = f"{settings}: {error}"
    for key, server in started.items():
        try:
            endpoints[key] = server.endpoint()
        except WillNotServe as error:
            if key[0] == OURS:
                raise
            problems[key[0]] = f"{key[1]}: {error}"
    for name, problem in problems.items():
        if name in chosen:
            print(f"{name} is out: {problem}", flush=True)
    return endpoints


def _open(model: RacedModel, name: str, settings: Settings, port: int) -> OurServer | PeerServer:
    if name == OURS:
        return OurServer(model, settings, port)
    return PeerServer(PEERS[name], model, settings, port)


def _close(started: dict[tuple[str, Settings], OurServer | PeerServer]) -> None:
    # Each may take some seconds to end.
    with ThreadPoolExecutor(len(started) or 1) as pool:
        list(pool.map(lambda server: server.close(), started.values()))


def _drive(
    endpoint: Endpoint, bodies: list[bytes], connections: int, seconds: int
) -> dict[str, Any]:
    try:
        with endpoint.awake():
            return asdict(drive(endpoint.url, bodies, connections, seconds))
    except RuntimeError as error:
        return {"error": " ".join(str(error).split())[-300:]}


def tune(options: argparse.Namespace) -> None:
    """Try each contender's settings and keep those with the most requests/s, few and many."""
    chosen = {} if options.fresh or not CHOSEN.is_file() else json.loads(CHOSEN.read_text())
    for name in options.models:
        model = prepare(name)
        for contender in [OURS, *options.peers]:
            if contender in chosen.setdefault(name, {}):
                continue
            best = try_all(model, contender, options)
            chosen[name][contender] = {load: asdict(each) for load, each in best.items()}
            CHOSEN.write_text(json.dumps(chosen, indent=1) + "\n")


def try_all(model: RacedModel, contender: str, options: argparse.Namespace) -> dict[str, Settings]:
    trials = list(_trials(contender, model, options.connections))
    wanted = {str(each): each for _, _, candidates in trials for each in candidates}
    best = {}
    with contextlib.ExitStack() as stack:
        servers = _start(stack, model, {contender: wanted}, options.port, {})
        for load, counts, candidates in trials:
            rates = {}
            for settings in candidates:
                if (contender, settings) in servers:
                    endpoint = servers[contender, settings]
                    rates[settings] = _rate(endpoint, counts, options.trial)
                    at = " and ".join(map(str, counts))
                    print(
                        f"{model.name} {contender} {settings}: {rates[settings]:,.0f} requests/s "
                        f"at {at} connections",
                        flush=True,
                    )
            best[load] = max(rates, key=rates.__getitem__, default=ALONE)
    return best


def _rate(endpoint: Endpoint, counts: list[int], seconds: int) -> float:
    bodies = next(iter(endpoint.bodies.values()))
    _drive(endpoint, bodies, WARM_UP_CONNECTIONS, TRIAL_WARM_UP_S)
    runs = [_drive(endpoint, bodies, count, seconds) for count in counts]
    return geometric_mean(run.get("requests_per_s", 1) for run in runs)


def _trials(
    contender: str, model: RacedModel, connections: list[int]
) -> Iterator[tuple[str, list[int], list[Settings]]]:
    # A second thread inside an operation of the two-moons MLP only costs.
    plain = [ALONE, TWO_WORKERS, *([TWO_THREADS] if model.routed else [])]
    if contender != OURS and not PEERS[contender].batches:
        few, many = plain, plain
    else:
        few, many = [*plain, ONE_BATCHED], BATCHED
    for load, candidates in (("few", few), ("many", many)):
        counts = [count for count in connections if load_of(count) == load]
        if counts:
            yield load, counts, candidates


def _read(loads: dict[str, dict[str, int]]) -> dict[str, Settings]:
    return {load: Settings(**values) for load, values in loads.items()}


def _chunks(names: list[str], size: int) -> Iterator[list[str]]:
    rest = iter(names)
    while chunk := list(islice(rest, size)):
        yield chunk


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--together", type=int, default=5, help="peers that stand side by side")
    parser.add_argument("--port", type=int, default=18080, help="first of the ports used")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--write", action="store_true", help="write docs/peers.md and .json")
    parser.add_argument("--tune", action="store_true", help="choose settings.json, then stop")
    parser.add_argument("--trial", type=int, default=1, help="seconds of each trial of settings")
    return parser.parse_args()


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes", file=sys.stderr)
