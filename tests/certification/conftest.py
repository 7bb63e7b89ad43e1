"""The small routed model, and copies of it to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import skipserve
from skipserve.training.recipes import open_recipe


@pytest.fixture
def project(routed_project, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(routed_project[0], tmp_path / "project"))


@pytest.fixture(scope="module")
def directory(routed_project):
    return routed_project[0] / "artifacts" / "small"


@pytest.fixture
def copied(project):
    return project / "artifacts" / "small"


@pytest.fixture(scope="module")
def routed(directory):
    return skipserve.open(directory, provider="cpu")


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()
