"""One transcript against every host: the same bytes (Ray Serve: test_ray.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import in_process
from running import Running
from transcript import asks_of, compare, over

pytestmark = pytest.mark.server


def test_every_host_answers_the_same_bytes(server: Running, project: Path) -> None:
    asks = asks_of(server.host)
    archives = sorted((project / "model_store").glob("*.mar"))
    compare(asks, over(server.port, asks.values()), in_process(archives, asks.values()))
