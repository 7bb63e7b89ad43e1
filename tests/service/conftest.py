"""A switch, for every file that tells a service what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skipserve.safety.switch import Switch


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    switch = Switch(tmp_path / "small")
    yield switch
    switch.close()
