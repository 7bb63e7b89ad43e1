"""Certifying on a serving machine: without training packages, and on an archive."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import skipserve
from skipserve.artifacts.archive import opened, unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.recertified import unpacked
from skipserve.certification.certifying import certify_artifact
from skipserve.errors import ArtifactError, ConfigError
from skipserve.extras import EXTRAS
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow

# None of it is in the slim image.
NOT_IN_THE_IMAGE = (*EXTRAS["train"], *EXTRAS["torchserve"])


@pytest.fixture
def store(routed_project, tmp_path):
    """A model store with an archive of its own."""
    (tmp_path / "store").mkdir()
    shutil.copy(routed_project[0] / "model_store" / "small.mar", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def data(tmp_path):
    samples = open_recipe("two_moons").draw("certify")
    np.save(tmp_path / "rows.npy", samples.inputs[:3_000].numpy())
    np.save(tmp_path / "labels.npy", samples.labels[:3_000].numpy())
    return ["--data", str(tmp_path / "rows.npy"), "--labels", str(tmp_path / "labels.npy")]


def certify(*arguments: object, missing: tuple[str, ...] = NOT_IN_THE_IMAGE):
    """Run `skipserve certify` where some packages are not installed."""
    script = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))
from skipserve.cli import main
main()
"""
    command = [sys.executable, "-c", script, " ".join(missing), "certify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def certificates(archive: Path) -> list[dict]:
    with zipfile.ZipFile(archive) as content:
        return json.loads(content.read(CERTIFICATES))["certificates"]


def test_an_archive_is_certified_where_nothing_trains(store, data, tmp_path):
    archive = store / "small.mar"
    archive.chmod(0o640)
    with zipfile.ZipFile(archive) as content:
        before = {name: content.read(name) for name in content.namelist()}
    done = certify(archive, *data, "--risk", "0.04", "--provider", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "disagreement 0.04: certified at 0.95 for fp32 on cpu" in done.stdout
    assert "note:" not in done.stderr  # which rows it was fitted to stands in the archive
    assert f"written into {archive}; a running service opens it at `skipserve reload`" in (
        done.stderr
    )
    assert [path.name for path in store.iterdir()] == ["small.mar"]
    assert stat.S_IMODE(archive.stat().st_mode) == 0o640
    with zipfile.ZipFile(archive) as content:
        after = {name: content.read(name) for name in content.namelist()}
        assert content.testzip() is None
    assert {name for name in after if after[name] != before.get(name)} == {CERTIFICATES}
    assert after.keys() == before.keys()
    made = [one for one in certificates(archive) if one["risk"] == 0.04]
    assert [(one["measure"], one["samples"]) for one in made] == [
        ("disagreement", 3_000),
        ("accuracy_lost", 3_000),
    ]
    served = unpack(archive, tmp_path / "served", {})
    engine = skipserve.open(served.directory, provider="cpu")
    assert {0.02, 0.04, 0.05} == set(engine.certified())


def test_the_file_that_the_archive_serves_with_is_certified(store, data):
    archive = store / "small.mar"
    with unpacked(archive, {"backend": "torchscript"}) as (artifact, settings):
        assert settings.backend == "torchscript"
        torchscript = artifact.hashes("torchscript", "fp32")
    but_torch = tuple(one for one in NOT_IN_THE_IMAGE if one != "torch")
    asked = ("--risk", "0.04", "--backend", "torchscript")
    done = certify(archive, *data, *asked, missing=but_torch)
    assert done.returncode == 0, done.stderr
    made = [one for one in certificates(archive) if one["risk"] == 0.04]
    assert [one["files"] for one in made] == [torchscript] * len(made)
    assert made


def test_two_that_certify_an_archive_at_once_take_nothing_from_each_other(store):
    archive, rows = store / "small.mar", open_recipe("two_moons").draw("certify").inputs.numpy()
    with unpacked(archive, {}) as (first, _), unpacked(archive, {}) as (second, _):
        certify_artifact(first.directory, rows[:3_000], [0.1], provider="cpu")
        certify_artifact(second.directory, rows[:3_000], [0.2], provider="cpu")
    found = [one["risk"] for one in certificates(archive) if one["measure"] == "disagreement"]
    assert sorted(found) == [0.02, 0.05, 0.1, 0.2]
    assert [one.name for one in store.iterdir()] == ["small.mar"]


def test_overrides_reach_whoever_opens_the_folder(store, tmp_path):
    served = unpack(store / "small.mar", tmp_path / "served", {"batch_size": 7})
    assert served.serving.batch_size == opened(served.directory).serving.batch_size == 7


def test_an_artifact_is_certified_where_nothing_trains(routed_project, tmp_path, data):
    artifact = shutil.copytree(routed_project[0] / "artifacts" / "small", tmp_path / "small")
    done = certify(artifact, *data, "--risk", "0.04", "--confidence", "0.3")
    assert done.returncode == 0, done.stderr
    assert "asks for certificates of 0.95; those made now, of 0.3, will not be served" in (
        done.stderr
    )
    assert "; not served: below 0.95" in done.stdout
    assert "`skipserve build export/small.toml` puts them into the archive" in done.stderr
    assert "then `skipserve reload`" in done.stderr
    assert any(one.risk == 0.04 for one in open_artifact(artifact).certificates.certificates)


def one_line(done) -> str:
    assert done.returncode == 2
    # A slow machine says what it is at, too.
    (line,) = (one for one in done.stderr.splitlines() if not one.endswith("so far"))
    return line


def test_the_recipes_own_samples_need_what_draws_them(store):
    for missing in ("sklearn", "mnist1d"):
        model = store / "small.mar" if missing == "sklearn" else digits_of_mnist1d(store)
        line = one_line(certify(model, missing=(missing,)))
        assert f"cannot be drawn: {missing} is not installed here" in line
        assert "--data" in line


def digits_of_mnist1d(store: Path) -> Path:
    """An artifact that says its rows are of mnist1d."""
    with unpacked(store / "small.mar", {}) as (artifact, _):
        directory = shutil.copytree(artifact.directory, store / "other")
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"two_moons"', '"mnist1d"'))
    return directory


def test_what_is_no_archive_is_one_line(store, data, tmp_path):
    missing = certify(store / "small.mar", "--data", tmp_path / "none")
    assert "none is not there" in one_line(missing)
    (store / "torn.mar").write_bytes((store / "small.mar").read_bytes()[:1000])
    assert "torn.mar" in one_line(certify(store / "torn.mar", *data))
    assert "missing.mar" in one_line(certify(store / "missing.mar", *data))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_to_is_refused_at_once(store):
    store.chmod(0o500)
    with pytest.raises(ConfigError, match="mount it writable"), unpacked(store / "small.mar", {}):
        raise AssertionError("certified in vain")


def test_an_archive_keeps_what_it_held_if_certifying_fails(store):
    archive = store / "small.mar"
    before = archive.read_bytes()
    with pytest.raises(RuntimeError), unpacked(archive, {}) as (artifact, _):
        (artifact.directory / CERTIFICATES).write_text("{}")
        raise RuntimeError
    assert archive.read_bytes() == before
    with (
        pytest.raises(ArtifactError, match="was replaced by another one meanwhile"),
        unpacked(archive, {}) as (artifact, _),
    ):
        manifest = artifact.directory / "manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
    assert archive.read_bytes() == before
    assert [path.name for path in store.iterdir()] == ["small.mar"]
