"""The small routed model, for every file about what is counted of it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def directory(routed_project):
    return routed_project[0] / "artifacts" / "small"
