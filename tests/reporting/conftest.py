"""Reports of the small model, with its router and without, for every file about reports."""

from __future__ import annotations

import shutil

import pytest
from reports import quiet

from skipserve.reporting.model import find_model
from skipserve.reporting.page import write_report
from skipserve.reporting.report import measure
from skipserve.reporting.sample import take_sample


@pytest.fixture(scope="session")
def project(routed_project):
    """A project with one small certified model; never changed."""
    return routed_project[0]


@pytest.fixture(scope="session")
def model(project):
    return find_model("small", project)


@pytest.fixture(scope="session")
def found(model):
    return measure(model, take_sample(model), 8, say=quiet)


@pytest.fixture(scope="session")
def page(found, tmp_path_factory):
    return write_report(found, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def unrouted(checkpoint, artifact, tmp_path_factory):
    """Findings about a model that has an artifact and no router."""
    root = tmp_path_factory.mktemp("unrouted")
    shutil.copytree(checkpoint, root / "checkpoints" / "small")
    shutil.copytree(artifact.directory, root / "artifacts" / "small")
    opened = find_model("small", root)
    return measure(opened, take_sample(opened), 8, say=quiet)
