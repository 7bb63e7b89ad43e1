"""Samples of a person: read exactly, and refused if they were used before."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.errors import ConfigError
from skipserve.samples import read_samples
from skipserve.training.recipes import open_recipe


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()


@pytest.fixture
def manifest(artifact):
    return artifact.manifest


def test_rows_and_labels_come_as_they_are_in_the_files(tmp_path, moons, manifest):
    labels = np.arange(len(moons)) % 2
    np.save(tmp_path / "rows.npy", moons)
    np.save(tmp_path / "labels.npy", labels)
    read = read_samples(tmp_path / "rows.npy", str(tmp_path / "labels.npy"), manifest)
    np.testing.assert_array_equal(read.rows.tensors["inputs"], moons)
    np.testing.assert_array_equal(read.labels, labels)
    assert read_samples(tmp_path / "rows.npy", None, manifest).labels is None


def test_labels_may_be_a_column(tmp_path, moons, manifest):
    labels = np.arange(len(moons)) % 2
    np.savez(tmp_path / "rows.npz", inputs=moons, label=labels)
    read = read_samples(tmp_path / "rows.npz", "label", manifest)
    np.testing.assert_array_equal(read.labels, labels)
    with pytest.raises(ConfigError, match="did you mean 'label'"):
        read_samples(tmp_path / "rows.npz", "labels", manifest)


def test_without_files_they_are_those_to_certify_on(manifest):
    read = read_samples(None, None, manifest)
    expected = open_recipe("two_moons").draw("certify").inputs.numpy()
    np.testing.assert_array_equal(read.rows.tensors["inputs"], expected)
    assert len(read.labels) == len(read)


@pytest.mark.parametrize("split", ["train", "propose"])
def test_rows_that_were_trained_or_proposed_on_are_refused(tmp_path, moons, manifest, split):
    touched = open_recipe("two_moons").draw(split).inputs.numpy()[:3]
    np.save(tmp_path / "rows.npy", np.concatenate([moons[:100], touched]))
    with pytest.raises(ConfigError, match=f"3 rows of .* are in the {split} split of two_moons"):
        read_samples(tmp_path / "rows.npy", None, manifest)


def test_what_cannot_be_read_is_an_error(tmp_path, moons, manifest):
    (tmp_path / "rows.npy").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"rows.npy is no .npy file; expected what numpy.save"):
        read_samples(tmp_path / "rows.npy", None, manifest)
    np.save(tmp_path / "rows.npy", moons)
    with pytest.raises(ConfigError, match="labels without --data"):
        read_samples(None, str(tmp_path / "rows.npy"), manifest)
    np.save(tmp_path / "rows.npy", np.float32(1))
    with pytest.raises(ConfigError, match="one entry a row"):
        read_samples(tmp_path / "rows.npy", None, manifest)


def test_a_brought_model_has_no_rows_of_its_own(manifest):
    source = manifest.source.model_copy(update={"kind": "onnx", "name": "moons.onnx"})
    brought = manifest.model_copy(update={"source": source})
    with pytest.raises(ConfigError, match="name rows that nothing was fitted to with --data"):
        read_samples(None, None, brought)
