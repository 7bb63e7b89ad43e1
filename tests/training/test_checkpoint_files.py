"""A checkpoint whose files are damaged is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skipserve.errors import CheckpointError
from skipserve.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"recipe": 1}'])
def test_a_configuration_that_cannot_be_read_is_named(
    checkpoint: Path, tmp_path: Path, content: bytes
) -> None:
    copy = tmp_path / "small"
    shutil.copytree(checkpoint, copy)
    (copy / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config.json cannot be read: ") as refused:
        load_checkpoint(copy)
    assert len(str(refused.value).splitlines()) == 1
