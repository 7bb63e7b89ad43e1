"""The command that `skipserve serve` prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from skipserve.address import Address
from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Depths
from skipserve.hosts.config import HostConfig, Tls
from skipserve.hosts.example import LONGEST, curl_of

URL = "http://127.0.0.1:8080/predictions/small"


def curl(artifact: Artifact, directory: Path, config: HostConfig | None = None) -> str:
    return curl_of([artifact.manifest], lambda _: URL, config or HostConfig(Address()), directory)


def test_numbers_are_short_and_the_same_in_fp32(artifact: Artifact, tmp_path: Path) -> None:
    found = re.search(r"-d '(.*?)' ", curl(artifact, tmp_path))
    assert found is not None
    (row,) = json.loads(found[1])["inputs"]
    expected = next(iter(artifact.manifest.example.inputs.values()))
    assert row == pytest.approx(expected, rel=1e-7)
    assert all(len(repr(one)) <= 14 for one in row)


def test_a_long_body_goes_into_a_file(artifact: Artifact, tmp_path: Path) -> None:
    name = next(iter(artifact.manifest.example.inputs))
    long = artifact.manifest.example.model_copy(update={"inputs": {name: [0.5] * LONGEST}})
    manifest = artifact.manifest.model_copy(update={"example": long})
    line = curl_of([manifest], lambda _: URL, HostConfig(Address()), tmp_path)
    found = re.search(r"-d @(\S+) ", line)
    assert found is not None
    assert json.loads(Path(found[1]).read_bytes())["inputs"] == [[0.5] * LONGEST]
    assert len(line) < LONGEST


def test_texts_are_sent_as_they_are(artifact: Artifact, tmp_path: Path) -> None:
    texts = ('it\'s "fine" – $HOME `x`', "two\nlines")
    assert artifact.manifest.depths is None
    depths = Depths(shallow={}, deep={}, values=texts)
    manifest = artifact.manifest.model_copy(update={"depths": depths})
    words = shlex.split(curl_of([manifest], lambda _: URL, HostConfig(Address()), tmp_path))
    assert json.loads(words[words.index("-d") + 1]) == {"inputs": [*texts]}


def test_a_certificate_of_ones_own_is_not_checked(artifact: Artifact, tmp_path: Path) -> None:
    config = HostConfig(Address(), tls=Tls(tmp_path / "certificate", tmp_path / "key"))
    assert curl(artifact, tmp_path, config).startswith("curl -k ")
