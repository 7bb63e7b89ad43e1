"""A running service with traffic, for tests of metrics, pages and logs."""

from __future__ import annotations

import itertools
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from running import Running, cli

import skipserve

MODEL, RISK = "small", 0.05


@dataclass
class Observed:
    """A service with one routed model.

    Attributes:
        project: Directory the model was built in.
        running: The `skipserve serve` process.
        rows: Real rows [N, 2].
    """

    project: Path
    running: Running
    rows: NDArray[np.float32]
    sent: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.running.metrics_port}"

    def traffic(self, requests: int, router: str = "on", rows: int = 4) -> None:
        """Real rows from four clients; every answer is 200."""
        with ThreadPoolExecutor(4) as clients:
            statuses = set(clients.map(lambda _: self._ask(router, rows), range(requests)))
        assert statuses == {200}

    def bad_request(self) -> None:
        """One request that is answered 400."""
        status, _, _ = self.running.ask(MODEL, {"inputs": [[1.0]]})
        assert status == 400

    def until_it_falls_back(self) -> None:
        """Only rows on which skipping changes the answer: a drift that no guard sees."""
        engine = skipserve.open(self.project / "artifacts" / MODEL, provider="cpu")
        routed, full = engine.predict(self.rows, risk=RISK), engine.predict(self.rows)
        changed = self.rows[routed.labels != full.labels][:1]
        assert len(changed), "nothing disagrees at a risk of 5 %; train another network"
        body = {"inputs": np.repeat(changed, 4, axis=0).tolist(), "parameters": {"router": "on"}}
        deadline = time.monotonic() + 60
        while 'state="fell_back"} 1' not in self.running.get("/metrics"):
            assert time.monotonic() < deadline
            assert self.running.ask(MODEL, body)[0] == 200
            time.sleep(0.01)

    def switch_on(self) -> None:
        """Let it skip again."""
        subprocess.run(
            [*cli("router", "on", MODEL), f"--metrics-port={self.running.metrics_port}"],
            check=True,
            capture_output=True,
        )

    def _ask(self, router: str, rows: int) -> int:
        first = next(self.sent) * rows % (len(self.rows) - rows)
        inputs = self.rows[first : first + rows].tolist()
        body = {"inputs": inputs, "parameters": {"router": router}}
        return self.running.ask(MODEL, body)[0]
