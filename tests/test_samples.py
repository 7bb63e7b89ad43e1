"""Rows and labels a person brings: read as they are, and refused if they were used before."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.errors import ConfigError
from skipserve.samples import read_samples
from skipserve.training.recipes import open_recipe


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()


def test_rows_and_labels_come_as_they_are_in_the_files(tmp_path, moons):
    labels = np.arange(len(moons)) % 2
    np.save(tmp_path / "rows.npy", moons)
    np.save(tmp_path / "labels.npy", labels)
    rows, read = read_samples(tmp_path / "rows.npy", tmp_path / "labels.npy", "two_moons")
    np.testing.assert_array_equal(rows, moons)
    np.testing.assert_array_equal(read, labels)
    assert read_samples(tmp_path / "rows.npy", None, "two_moons")[1] is None


def test_without_files_they_are_those_to_certify_on():
    rows, labels = read_samples(None, None, "two_moons")
    np.testing.assert_array_equal(rows, open_recipe("two_moons").draw("certify").inputs.numpy())
    assert len(labels) == len(rows)


@pytest.mark.parametrize("split", ["train", "propose"])
def test_rows_that_were_trained_or_proposed_on_are_refused(tmp_path, moons, split):
    touched = open_recipe("two_moons").draw(split).inputs.numpy()[:3]
    np.save(tmp_path / "rows.npy", np.concatenate([moons[:100], touched]))
    with pytest.raises(ConfigError, match=f"3 rows of .* are in the {split} split of two_moons"):
        read_samples(tmp_path / "rows.npy", None, "two_moons")


def test_what_cannot_be_read_is_an_error(tmp_path, moons):
    (tmp_path / "rows.npy").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"cannot be read as a \.npy array"):
        read_samples(tmp_path / "rows.npy", None, "two_moons")
    np.save(tmp_path / "rows.npy", moons)
    with pytest.raises(ConfigError, match="labels without --data"):
        read_samples(None, tmp_path / "rows.npy", "two_moons")
    np.save(tmp_path / "rows.npy", np.float32(1))  # no rows: the engine says what it expects
    assert read_samples(tmp_path / "rows.npy", None, "two_moons")[0].ndim == 0
