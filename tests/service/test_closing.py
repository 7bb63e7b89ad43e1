"""A service that is closed leaves nothing open and has written all that its evidence said."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.counts_file import CountsReader
from skipserve.earning.worker_state import DIRECTORY_VARIABLE as EVIDENCE
from skipserve.hosts.models import Models
from skipserve.hosts.overdue import Overdue
from skipserve.protocols.messages import RawRequest
from skipserve.safety.kind import Kind, binding_for
from skipserve.safety.switch import DIRECTORY_VARIABLE as SWITCHES
from skipserve.safety.switch import ControlState, Switch
from skipserve.service.idle import Immediate
from skipserve.service.opening import open_service

BODY = b'{"inputs": [[0.1, 0.2], [0.3, 0.4]]}'


@pytest.fixture(scope="module")
def project(routed_project):
    return routed_project[0]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What a launcher tells a worker: an epoch for which all rows count."""
    for variable in (SWITCHES, EVIDENCE):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    switch = Switch(tmp_path / SWITCHES / "small")
    switch.write(ControlState("on", 1, (None,) * 4, eager=True))
    switch.close()
    return tmp_path / EVIDENCE / "small"


def open_files(folder):
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += one.readlink().is_relative_to(folder)
    return found


def counted(project, folder):
    artifact = open_artifact(project / "artifacts" / "small")
    binding = binding_for(artifact, Kind("onnxruntime", "cpu", "fp32"))
    return CountsReader(folder, binding, len(artifact.certificates.candidates)).read()[1].rows


def test_many_opened_one_after_the_other_leave_no_file_open(project, told, tmp_path):
    artifact, serving = open_artifact(project / "artifacts" / "small"), ServingConfig(risk=0.05)
    for turn in range(1, 4):
        service = open_service(artifact, serving, Immediate())
        (reply,) = service.answer([RawRequest(BODY, {})])
        assert reply.status == 200
        assert open_files(tmp_path) > 0
        service.close()
        assert counted(project, told) == 2 * turn
        assert open_files(tmp_path) == 0
        service.close()  # no harm


def test_models_that_are_closed_write_down_what_waited_for_an_idle_moment(project, told, tmp_path):
    one = unpack(
        project / "model_store" / "small.mar", tmp_path / "store", {"risk": 0.05, "evidence": 1.0}
    )

    async def serve():
        models = Models([one], Overdue().of)
        # The reply is there before its evidence is, and before the batch has ended.
        reply = await models["small"].batcher.answer(RawRequest(BODY, {}))
        models.close()
        return reply.status

    assert asyncio.run(serve()) == 200
    assert counted(project, told) == 2
    assert open_files(tmp_path / EVIDENCE) + open_files(tmp_path / SWITCHES) == 0
