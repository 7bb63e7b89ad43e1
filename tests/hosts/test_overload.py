"""More requests than can be answered: some are, the others are told so, and nothing grows."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from running import JSON, serving, until

pytestmark = pytest.mark.server
CLIENTS = 48
# A thousand rows take any machine so long that a few of them waiting are too many.
MANY = json.dumps({"inputs": [[0.5, -0.25]] * 1000, "parameters": {"router": "off"}}).encode()


def test_who_would_wait_too_long_is_refused_and_the_others_are_answered(
    routed_project: tuple[Path, list[str]],
) -> None:
    with serving(routed_project[0], "--max-wait-ms", "10") as running:
        asked: list[tuple[int, str, bytes]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                status, headers, body = running.send("POST", "/predictions/small", MANY, **JSON)
                asked.append((status, headers.get("retry-after", ""), body))

        def seen() -> Counter[int]:
            return Counter(status for status, *_ in list(asked))

        (worker,) = running.workers()
        with ThreadPoolExecutor(CLIENTS) as clients:
            asking = [clients.submit(ask) for _ in range(CLIENTS)]
            try:
                until(lambda: len(asked) >= 100)
                before = memory(worker)
                until(lambda: min(seen()[200], seen()[503]) >= 100)
                most = memory(worker)
            finally:
                stop.set()
            for one in asking:
                one.result()
        assert set(seen()) == {200, 503}
        refused = [(after, body) for status, after, body in asked if status == 503]
        assert all(after == "1" for after, _ in refused)
        assert all(json.loads(body)["error"]["code"] == "overloaded" for _, body in refused)
        assert most < before + (64 << 20)
        # Once the queue is empty everybody is let in again.
        assert running.send("POST", "/predictions/small", MANY, **JSON)[0] == 200
        assert running.restarts() == 0


def memory(process: psutil.Process) -> int:
    """Bytes that it holds."""
    held: int = process.memory_info().rss
    return held
