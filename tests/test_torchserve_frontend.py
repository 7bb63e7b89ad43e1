"""The mended frontend; that its classes run is what every test with a server shows."""

from __future__ import annotations

import importlib.util
import logging
import zipfile
from pathlib import Path

import pytest
import yaml
from skipserve.hosts.torchserve.instance import Instance

from skipserve.artifacts.archive import Frontend, model_config
from skipserve.artifacts.serving import ServingConfig
from skipserve.hosts.torchserve.frontend import PATCHES, patch_frontend

JAR = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"


def test_only_the_edits_change(tmp_path):
    patch_frontend(JAR, tmp_path)
    classes = [{edit.of for edit in patch.edits} for patch in PATCHES]
    assert len(set.union(*classes)) == sum(map(len, classes))
    assert all(patch.is_in(tmp_path) for patch in PATCHES)
    edits = [edit for patch in PATCHES for edit in patch.edits]
    with zipfile.ZipFile(JAR) as archive:
        for name in set.union(*classes):
            original, mended = archive.read(name), (tmp_path / name).read_bytes()
            for edit in (edit for edit in edits if edit.of == name):
                assert (original.count(edit.new), original.count(edit.old)) == (0, edit.times)
                assert (mended.count(edit.new), mended.count(edit.old)) == (edit.times, 0)
                mended = mended.replace(edit.new, edit.old)
            assert mended == original


@pytest.mark.parametrize("content", [b"", b"\x01\x00\x0cMILLISECONDS" * 2])
def test_another_frontend_is_left_as_it_is(tmp_path, caplog, content):
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for name in {edit.of for patch in PATCHES for edit in patch.edits}:
            archive.writestr(name, content)
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    with caplog.at_level(logging.WARNING):
        patch_frontend(jar, instance.classes)
    assert not instance.classes.exists()
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        patch.without for patch in PATCHES
    ]
    assert instance.frontend() == Frontend(delay_unit_ms=1.0, pipelines=False)


@pytest.mark.parametrize(
    ("delay_ms", "as_it_comes", "mended"),
    [(None, 1, 50), (0.25, 1, 250), (0, 1, 1), (0.001, 1, 1), (2.5, 3, 2500), (7, 7, 7000)],
)
def test_a_delay_is_written_in_the_frontends_unit(tmp_path, delay_ms, as_it_comes, mended):
    serving = ServingConfig(max_batch_delay_ms=delay_ms)
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    assert yaml.safe_load(model_config(serving))["maxBatchDelay"] == as_it_comes
    patch_frontend(JAR, instance.classes)
    written = yaml.safe_load(model_config(serving, instance.frontend()))
    assert written["maxBatchDelay"] == mended
    assert written["skipserve"]["max_batch_delay_ms"] == delay_ms


def test_requests_are_pipelined_only_where_that_was_asked_for(tmp_path):
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    patch_frontend(JAR, instance.classes)
    written = yaml.safe_load(model_config(ServingConfig(batch_size=8), instance.frontend()))
    assert (written["asyncCommunication"], written["batchSize"]) == (False, 8)
    assert written["maxBatchDelay"] == 50  # microseconds, for each next request


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("pipelines", [False, True])
def test_only_one_workers_requests_are_pipelined(workers, asked, pipelines):
    serving = ServingConfig(workers=workers, batch_size=8, pipelined=asked)
    written = yaml.safe_load(model_config(serving, Frontend(pipelines=pipelines)))
    pipelined = pipelines and asked and workers == 1
    assert written["asyncCommunication"] == pipelined
    assert written["batchSize"] == (1 if pipelined else 8)
    assert written["skipserve"]["batch_size"] == 8
