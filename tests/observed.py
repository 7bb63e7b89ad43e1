"""A running service with traffic, for the tests of what can be seen of it."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from test_serve import Running

MODEL = "routed"


@dataclass
class Observed:
    """A service with one routed model.

    Attributes:
        running: The `skipserve serve` process.
        rows: Real rows [N, 2].
    """

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

    def _ask(self, router: str, rows: int) -> int:
        first = next(self.sent) * rows % (len(self.rows) - rows)
        inputs = self.rows[first : first + rows].tolist()
        body = {"inputs": inputs, "parameters": {"router": router}}
        return self.running.ask(MODEL, body)[0]
