"""Which tests are run, and in which order: hooks of pytest, imported by conftest.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# They take half a minute and more each, the longest first: begun in this order, so that none is
# left to one worker at the end. The first two wait for no model that the other makes.
LONG_FILES = (
    *("test_readme.py", "test_workers.py", "test_loadtest.py", "test_ray.py", "test_serve.py"),
    *("test_own_models.py", "test_surroundings.py", "test_faults.py", "test_starting.py"),
    *("test_tasks.py", "test_build_inputs.py", "test_calibrate.py", "test_haproxy.py"),
    *("test_compatible.py", "test_brought_texts.py", "test_wheel.py", "test_client.py"),
    *("test_study.py", "test_clients.py", "test_fuzz.py", "test_prometheus.py", "test_tuning.py"),
    *("test_foreign.py", "test_proposing_served.py", "test_pressure.py", "test_reload.py"),
)

# What starts a service, and what builds a model.
STARTS = {"server", "observed"}
BUILDS = {
    *("brought", "clone", "kserve_packages", "project", "site", "texts_root", "two_models", "wheel")
}
# A file all of whose tests are left out need not be imported: that alone takes seconds.
WHOLE = re.compile(r"^pytestmark = \[?pytest\.mark\.(server|slow|extras)\b", re.M)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.suffix != ".py":
        return None
    found = WHOLE.search(collection_path.read_text())
    left_out = found is not None and f"not {found[1]}" in config.option.markexpr
    return True if left_out else None


@pytest.hookimpl(tryfirst=True)  # before marks choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & STARTS:
            item.add_marker(pytest.mark.server)
        if fixtures & BUILDS:
            item.add_marker(pytest.mark.slow)
