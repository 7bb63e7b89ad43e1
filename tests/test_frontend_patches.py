"""The mended frontend; that its classes run is what every test with a server shows."""

from __future__ import annotations

import importlib.util
import logging
import zipfile
from pathlib import Path

import pytest
import yaml

from skipserve.serving.archive import model_config
from skipserve.serving.config import ServingConfig
from skipserve.serving.frontend_patches import PATCHES, patch_frontend
from skipserve.serving.torchserve import Instance

JAR = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"


def test_only_the_edits_change(tmp_path):
    patch_frontend(JAR, tmp_path)
    edits = [edit for patch in PATCHES for edit in patch.edits]
    assert len({edit.of for edit in edits}) == len(edits)
    assert all(patch.is_in(tmp_path) for patch in PATCHES)
    with zipfile.ZipFile(JAR) as archive:
        for edit in edits:
            original, mended = archive.read(edit.of), (tmp_path / edit.of).read_bytes()
            assert (original.count(edit.new), original.count(edit.old)) == (0, edit.times)
            assert (mended.count(edit.new), mended.count(edit.old)) == (edit.times, 0)
            assert mended.replace(edit.new, edit.old) == original


@pytest.mark.parametrize("content", [b"", b"\x01\x00\x0cMILLISECONDS" * 2])
def test_another_frontend_is_left_as_it_is(tmp_path, caplog, content):
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for edit in (edit for patch in PATCHES for edit in patch.edits):
            archive.writestr(edit.of, content)
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    with caplog.at_level(logging.WARNING):
        patch_frontend(jar, instance.classes)
    assert not instance.classes.exists()
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        patch.without for patch in PATCHES
    ]
    assert instance.delay_unit_ms == 1.0


@pytest.mark.parametrize(
    ("delay_ms", "as_it_comes", "mended"),
    [(0.25, 1, 250), (0.001, 1, 1), (2.5, 3, 2500), (7, 7, 7000)],
)
def test_a_delay_is_written_in_the_frontends_unit(tmp_path, delay_ms, as_it_comes, mended):
    serving = ServingConfig(max_batch_delay_ms=delay_ms)
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    assert yaml.safe_load(model_config(serving))["maxBatchDelay"] == as_it_comes
    patch_frontend(JAR, instance.classes)
    written = yaml.safe_load(model_config(serving, instance.delay_unit_ms))
    assert written["maxBatchDelay"] == mended
    assert written["skipserve"]["max_batch_delay_ms"] == delay_ms
