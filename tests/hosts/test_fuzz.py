"""Fuzzing: nearly valid requests in every protocol beside good ones; `make soak` sends more."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from extremes import rows
from fuzz_client import Client, right
from fuzzing import Fuzzer
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from running import Running, serving

pytestmark = pytest.mark.server
# `make soak` sets both.
REQUESTS = int(os.environ.get("SKIPSERVE_FUZZ", "10000"))
SOAK_S = float(os.environ.get("SKIPSERVE_SOAK", "10"))
CLIENTS = 4
# The two moons are within three of 0.
FAR = 1e6


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]]) -> Iterator[Running]:
    with serving(routed_project[0], "--batch-size", "16") as running:
        yield running


def test_no_request_is_a_fault_of_the_service(server: Running) -> None:
    expected = right(server)
    clients = [Client(server, expected) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [
            threads.submit(client.run, Fuzzer(seed).requests(REQUESTS // CLIENTS))
            for seed, client in enumerate(clients)
        ]
        for one in running:
            one.result()
    seen = sum((client.seen for client in clients), Counter[int]())
    bad = [one for client in clients for one in client.bad]
    assert not bad, bad[0]
    assert sum(seen.values()) == REQUESTS // CLIENTS * CLIENTS
    # It gets past the door: some are answered, and the others are wrong in many ways.
    assert seen[200] > REQUESTS / 20, seen
    assert {400, 404, 405, 413, 415} <= set(seen), seen
    assert server.restarts() == 0
    assert "Traceback" not in server.printed


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows(2))
def test_any_number_is_answered_and_harms_no_neighbour(
    server: Running, extreme: NDArray[np.float32]
) -> None:
    """All of float32, as JSON: at full depth where no ordinary row is near, or an error."""
    ordinary = {"inputs": [[0.5, -0.25]]}
    alone = server.ask("small", ordinary)[2]["outputs"][0]
    status, _, answer = server.ask("small", {"inputs": [extreme.tolist(), [0.5, -0.25]]})
    if status == 400:
        assert (answer["error"]["code"], answer["error"]["row"]) == ("not_finite", 0)
        assert np.abs(extreme).max() > FAR
        assert server.ask("small", ordinary)[2]["outputs"][0] == alone
        return
    far, beside = answer["outputs"]
    assert beside["depth_run"] == alone["depth_run"]
    difference = np.subtract(beside["probabilities"], alone["probabilities"])
    assert np.abs(difference).max() < 1e-5
    assert np.isfinite(far["probabilities"]).all()
    if np.abs(extreme).max() > FAR:
        assert far["depth_run"] == 4
        assert far["held_back"]


def test_the_same_seed_asks_the_same() -> None:
    one, other = (list(Fuzzer(3).requests(50)) for _ in range(2))
    assert one == other
    assert one != list(Fuzzer(4).requests(50))


def test_nothing_grows_while_it_goes_on(server: Running) -> None:
    """Good, wrong and abandoned requests for a while: memory, descriptors and threads."""
    (worker,) = server.workers()
    launcher = psutil.Process(server.process.pid)
    expected, stop, asked = right(server), threading.Event(), 0

    def ask(seed: int) -> int:
        client, fuzzer = Client(server, expected), Fuzzer(1000 + seed)
        count = 0
        while not stop.is_set():
            client.run(fuzzer.requests(200))
            count += 200
        assert not client.bad, client.bad[0]
        return count

    memory, descriptors, threads = list[int](), list[int](), list[int]()
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, seed) for seed in range(2)]
        end_s = time.monotonic() + SOAK_S
        try:
            while (left_s := end_s - time.monotonic()) > 0:
                stop.wait(min(left_s, SOAK_S / 60))
                memory.append(worker.memory_info().rss + launcher.memory_info().rss)
                descriptors.append(worker.num_fds() + launcher.num_fds())
                threads.append(worker.num_threads() + launcher.num_threads())
        finally:
            stop.set()
        asked = sum(one.result() for one in asking)
    later = memory[len(memory) // 3 :]  # arenas and caches fill at first
    slope = np.polyfit(np.arange(len(later)), later, 1)[0] * len(later)
    half = len(memory) // 2
    print(
        f"\n{asked} requests in {SOAK_S:g} s: memory {later[0] / 1e6:.0f} MB, of which "
        f"{slope / 1e6:+.1f} MB came in the last two thirds; most descriptors "
        f"{max(descriptors[:half])}, then {max(descriptors[half:])}; most threads "
        f"{max(threads[:half])}, then {max(threads[half:])}"
    )
    assert slope < max(0.03 * later[0], 8 << 20), (slope, later[0])
    assert max(descriptors[half:]) <= max(descriptors[:half]) + 2
    assert max(threads[half:]) <= max(threads[:half]) + 1
    assert asked
    assert server.restarts() == 0
