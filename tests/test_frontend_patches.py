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
from skipserve.serving.frontend_patches import BATCH_DELAY, REQUEST_ID, patch_frontend
from skipserve.serving.torchserve import Instance

JAR = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"


def test_one_string_of_each_class_changes(tmp_path):
    patch_frontend(JAR, tmp_path)
    with zipfile.ZipFile(JAR) as archive:
        for patch in (REQUEST_ID, BATCH_DELAY):
            original, mended = archive.read(patch.of), (tmp_path / patch.of).read_bytes()
            assert len(mended) - len(original) == len(patch.new) - len(patch.old)
            assert patch.is_in(tmp_path)
            assert (mended.count(patch.new.encode()), original.count(patch.new.encode())) == (1, 0)


@pytest.mark.parametrize("content", [b"", b"\x01\x00\x0cMILLISECONDS" * 2])
def test_another_frontend_is_left_as_it_is(tmp_path, caplog, content):
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for patch in (REQUEST_ID, BATCH_DELAY):
            archive.writestr(patch.of, content)
    instance = Instance(tmp_path, "127.0.0.1", 0, 0, (0, 0))
    with caplog.at_level(logging.WARNING):
        patch_frontend(jar, instance.classes)
    assert not instance.classes.exists()
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        REQUEST_ID.without,
        BATCH_DELAY.without,
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
