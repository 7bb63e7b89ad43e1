"""Samples of a person: read exactly, and refused if they were used before."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.touched import TOUCHED, read_touched
from skipserve.errors import ArtifactError, ConfigError
from skipserve.samples import read_samples
from skipserve.training.recipes import open_recipe


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()


@pytest.fixture(scope="module")
def built(routed_project):
    """As a build leaves it: it knows which rows it was fitted to."""
    return open_artifact(routed_project[0] / "artifacts" / "small")


def test_rows_and_labels_come_as_they_are_in_the_files(tmp_path, moons, built):
    labels = np.arange(len(moons)) % 2
    np.save(tmp_path / "rows.npy", moons)
    np.save(tmp_path / "labels.npy", labels)
    read = read_samples(tmp_path / "rows.npy", str(tmp_path / "labels.npy"), built)
    np.testing.assert_array_equal(read.rows.tensors["inputs"], moons)
    np.testing.assert_array_equal(read.labels, labels)
    assert read_samples(tmp_path / "rows.npy", None, built).labels is None


def test_labels_may_be_a_column(tmp_path, moons, built):
    labels = np.arange(len(moons)) % 2
    np.savez(tmp_path / "rows.npz", inputs=moons, label=labels)
    read = read_samples(tmp_path / "rows.npz", "label", built)
    np.testing.assert_array_equal(read.labels, labels)
    with pytest.raises(ConfigError, match="did you mean 'label'"):
        read_samples(tmp_path / "rows.npz", "labels", built)


def test_without_files_they_are_those_to_certify_on(built):
    read = read_samples(None, None, built)
    expected = open_recipe("two_moons").draw("certify").inputs.numpy()
    np.testing.assert_array_equal(read.rows.tensors["inputs"], expected)
    assert len(read.labels) == len(read)


@pytest.mark.parametrize("split", ["train", "propose"])
def test_rows_that_were_trained_or_proposed_on_are_refused(tmp_path, moons, built, split):
    touched = open_recipe("two_moons").draw(split).inputs.numpy()[:3]
    np.save(tmp_path / "rows.npy", np.concatenate([moons[:100], touched]))
    with pytest.raises(ConfigError, match=r"3 of 103 rows of .* among those that small was fitted"):
        read_samples(tmp_path / "rows.npy", None, built)


def test_what_was_fitted_to_is_known_in_the_archive_too(tmp_path, routed_project, built):
    archive = routed_project[0] / "model_store" / "small.mar"
    files = unpack(archive, tmp_path, {}).artifact
    np.testing.assert_array_equal(read_touched(files.directory), read_touched(built.directory))
    touched = open_recipe("two_moons").draw("train").inputs.numpy()[:1]
    np.save(tmp_path / "rows.npy", touched)
    with pytest.raises(ConfigError, match="1 of 1 rows"):
        read_samples(tmp_path / "rows.npy", None, files)


def test_where_it_is_not_known_what_was_fitted_to_it_is_said(tmp_path, moons, artifact):
    np.save(tmp_path / "rows.npy", moons)
    said = []
    read_samples(tmp_path / "rows.npy", None, artifact, said.append)
    (line,) = said
    assert "was not compared with them; a certificate holds only if it has none of them" in line


def test_damaged_hashes_of_what_was_fitted_to_are_an_error(tmp_path, moons, built):
    copy = tmp_path / "small"
    shutil.copytree(built.directory, copy)
    np.save(tmp_path / "rows.npy", moons)
    damages = [b"", b"PK", (copy / TOUCHED).read_bytes()[:-1]]
    np.save(tmp_path / "floats.npy", np.zeros(3))
    for content in (*damages, (tmp_path / "floats.npy").read_bytes()):
        (copy / TOUCHED).write_bytes(content)
        with pytest.raises(ArtifactError, match=r"touched.npy is damaged .*; build the artifact"):
            read_samples(tmp_path / "rows.npy", None, open_artifact(copy))


def test_what_cannot_be_read_is_an_error(tmp_path, moons, built):
    (tmp_path / "rows.npy").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"rows.npy is no .npy file; expected what numpy.save"):
        read_samples(tmp_path / "rows.npy", None, built)
    np.save(tmp_path / "rows.npy", moons)
    with pytest.raises(ConfigError, match="labels without --data"):
        read_samples(None, str(tmp_path / "rows.npy"), built)
    np.save(tmp_path / "rows.npy", np.float32(1))
    with pytest.raises(ConfigError, match="one entry a row"):
        read_samples(tmp_path / "rows.npy", None, built)


def test_a_brought_model_has_no_rows_of_its_own(artifact):
    source = artifact.manifest.source.model_copy(update={"kind": "onnx", "name": "moons.onnx"})
    manifest = artifact.manifest.model_copy(update={"source": source})
    with pytest.raises(ConfigError, match="name rows that nothing was fitted to with --data"):
        read_samples(None, None, replace(artifact, manifest=manifest))
