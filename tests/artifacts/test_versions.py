"""An environment for GPUs holds onnxruntime-gpu in place of onnxruntime."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from skipserve.versions import version_of


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the only environment one that holds a distribution."""

    def make(name: str, version: str) -> None:
        about = tmp_path / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return make


def test_the_gpu_distribution_is_onnxruntime_too(installed):
    installed("onnxruntime_gpu", "1.31.1")
    assert version_of("onnxruntime") == "1.31.1"


def test_the_plain_distribution_goes_first(installed):
    installed("onnxruntime_gpu", "1.31.1")
    installed("onnxruntime", "1.32.0")
    assert version_of("onnxruntime") == "1.32.0"


@pytest.mark.parametrize("package", ["onnxruntime", "torch"])
def test_what_is_not_there_is_not_made_up(installed, package):
    with pytest.raises(PackageNotFoundError, match=rf"for {package}$"):
        version_of(package)
