"""Errors of the machine and missing packages are one line."""

from __future__ import annotations

import errno

import pytest

from skipserve.commands.failures import line_for
from skipserve.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("wrong"), "wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), "/a: No such file"),
        (ModuleNotFoundError("no", name="sklearn.svm"), "sklearn is not installed; run `pip"),
        (ModuleNotFoundError("no", name="locust"), "install 'skipserve[loadtest]'"),
        (ModuleNotFoundError("no", name="onnxruntime"), "'skipserve[gpu]'`"),
    ],
)
def test_what_was_to_be_expected_is_a_line(error, line):
    assert line in (line_for(error) or "")


@pytest.mark.parametrize(
    "error", [ValueError("x"), ConnectionResetError(), ModuleNotFoundError("no", name="nowhere")]
)
def test_a_fault_of_ours_keeps_its_traceback(error):
    assert line_for(error) is None


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, command_line):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.toml").write_text('name = "a"\nrecipe = "two_moons"\n')
    (tmp_path / ".build").write_text("in the way")
    ended = command_line("build", "export/a.toml", folder=tmp_path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1] == f"error: {tmp_path}/.build/a: Not a directory"
