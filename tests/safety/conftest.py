"""The small routed model, certified and earning, for every file about what keeps it."""

from __future__ import annotations

import pytest
from earning_model import Model, earning

from skipserve.artifacts.artifact import open_artifact


@pytest.fixture(scope="module")
def certified(routed_project):
    return open_artifact(routed_project[0] / "artifacts" / "small")


@pytest.fixture
def model(tmp_path, certified):
    made = Model(tmp_path / "one", earning(certified))
    made.watch.tick()
    yield made
    made.file.close()
