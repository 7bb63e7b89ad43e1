"""Artifacts that were damaged: any value and any byte of them is noticed, or harmless."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_places import places

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.errors import ArtifactError, SkipserveError
from skipserve.runtime.engine import Engine

ODD: list[object] = [
    *(None, True, -1, 0, 2**31, 2**64, 10**400, -0.5, float("nan"), float("inf"), 1e308, "", "x"),
    *("é" * 1000, "../x", "/etc/passwd", "\0", [], {}, [[]], {"a": 1}, [1, 2], ["x"]),
]


@pytest.fixture
def artifact_folder(routed_project: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of an artifact."""
    return shutil.copytree(routed_project[0] / "artifacts" / "small", tmp_path / "small")


@pytest.mark.slow
@pytest.mark.parametrize("name", [MANIFEST, CERTIFICATES])
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_says_what_an_artifact_is_may_say_anything(
    artifact_folder: Path, name: str, data: Any
) -> None:
    """No hash covers these: each place holds anything, and it is one line or harmless."""
    file = artifact_folder / name
    whole = file.read_bytes()
    value = json.loads(whole)
    holder, key = data.draw(st.sampled_from(list(places(value))))
    if data.draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = data.draw(st.sampled_from(ODD))
    file.write_text(json.dumps(value))
    try:
        Engine(open_artifact(artifact_folder), provider="cpu")
    except SkipserveError as error:
        assert "small" in str(error)
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_byte_of_a_model_file_counts(artifact_folder: Path, data: Any) -> None:
    files = sorted(
        file for file in artifact_folder.iterdir() if file.suffix in (".onnx", ".bin", ".pt")
    )
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    place, bent = data.draw(st.integers(0, len(whole) - 1)), bytearray(whole)
    if data.draw(st.booleans()):
        bent[place] ^= data.draw(st.integers(1, 255))
    else:
        del bent[place:]
    file.write_bytes(bent)
    try:
        with pytest.raises(ArtifactError, match="is not the file the manifest describes") as told:
            open_artifact(artifact_folder)
        assert file.name in str(told.value)
    finally:
        file.write_bytes(whole)


def test_a_manifest_that_names_no_file_for_a_role_says_which(artifact_folder: Path) -> None:
    value = json.loads((artifact_folder / MANIFEST).read_text())
    (plain,) = (one for one in value["files"] if (one["format"], one["role"]) == ("onnx", "plain"))
    plain["role"] = "weights"
    (artifact_folder / MANIFEST).write_text(json.dumps(value))
    with pytest.raises(SkipserveError, match="plain"):
        Engine(open_artifact(artifact_folder), provider="cpu")
