"""Corrupted copies of rows: right inputs, seeds and names."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.routing import corruption
from skipserve.routing.corruptible import Corruptible
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature, TensorSpec

COUNT, LENGTH = 40, 9


def signed(tensors, counts=None, mask=None):
    """Rows, and a signature of them."""
    inputs = tuple(
        TensorSpec(
            name=name,
            dtype=x.dtype.name,
            shape=("batch", *x.shape[1:]),
            count=(counts or {}).get(name),
        )
        for name, x in tensors.items()
    )
    return Rows(tensors), Signature(inputs=inputs, outputs=inputs[:1], mask=mask)


def drawn():
    return np.random.default_rng(0)


def floats(*shape):
    return drawn().uniform(-1, 3, (COUNT, *shape)).astype(np.float32)


def pictures():
    return signed({"x": floats(3, 4, 4)})


def pixels():
    return signed({"x": drawn().integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)})


def flat_pixels():
    return signed({"x": drawn().integers(0, 256, (COUNT, 64)).astype(np.uint8)})


def sound():
    return signed({"x": drawn().integers(-9_000, 9_000, (COUNT, 50)).astype(np.int16)})


def binarised():
    return signed({"x": drawn().integers(0, 2, (COUNT, 1, 6, 6)).astype(np.float32)})


def counted():
    return signed({"ages": drawn().integers(18, 90, (COUNT, 4))})


def flags():
    return signed({"x": drawn().random((COUNT, 30)) < 0.3})


def masked(largest, **others):
    mask = (np.arange(LENGTH) < drawn().integers(3, LENGTH + 1, (COUNT, 1))).astype(np.int64)
    return {"ids": drawn().integers(1, largest + 1, (COUNT, LENGTH)) * mask, **others, "mask": mask}


SEGMENTS = np.broadcast_to(np.arange(LENGTH) > 4, (COUNT, LENGTH)).astype(np.int64)
POSITIONS = np.broadcast_to(np.arange(LENGTH), (COUNT, LENGTH)).astype(np.int64)


def texts():
    return signed(masked(2_000, segments=SEGMENTS), mask="mask")


def letters():
    """Segments vary from row to row; positions reach further than the alphabet."""
    segments = (np.arange(LENGTH) > drawn().integers(2, 7, (COUNT, 1))).astype(np.int64)
    tensors = masked(6, segments=segments, positions=POSITIONS)
    return signed(tensors, {"ids": 7, "segments": 2, "positions": 512}, "mask")


def dna():
    return signed({"ids": drawn().integers(0, 4, (COUNT, 30))}, {"ids": 4})


def bits():
    return signed({"ids": drawn().integers(0, 2, (COUNT, 30))}, {"ids": 2})


def lengths_beside():
    """How long each row is, a number, is not what it is about."""
    tensors = masked(20) | {"lengths": drawn().integers(3, LENGTH + 1, COUNT)}
    return signed(tensors, {"ids": 21}, "mask")


def soft_mask():
    """A mask of floats, which is not known as one."""
    tensors = {"ids": drawn().integers(0, 20, (COUNT, LENGTH))}
    real = np.arange(LENGTH) < drawn().integers(3, LENGTH + 1, (COUNT, 1))
    return signed(tensors | {"weights": real.astype(np.float32)}, {"ids": 20})


def categories():
    """One number a row each."""
    colours, sizes = drawn().integers(0, 12, COUNT), drawn().integers(0, 5, (COUNT, 1))
    return signed({"colour": colours, "size": sizes}, {"colour": 12, "size": 5})


CHANGED = {
    pictures: {"x"},
    pixels: {"x"},
    flat_pixels: {"x"},
    sound: {"x"},
    binarised: {"x"},
    counted: {"ages"},
    flags: {"x"},
    texts: {"ids"},
    letters: {"ids"},
    dna: {"ids"},
    bits: {"ids"},
    lengths_beside: {"ids"},
    soft_mask: {"ids"},
    categories: {"colour", "size"},
}
TOKENS = {flags, texts, letters, dna, bits, lengths_beside, soft_mask, categories}
# Nothing of a single token can be shuffled.
NOTHING = {(categories, "tokens shuffled")}


@pytest.mark.parametrize("make", CHANGED, ids=lambda make: make.__name__)
def test_every_kind_changes_what_rows_are_about_and_nothing_else(make):
    rows, signature = make()
    before = {name: x.copy() for name, x in rows.tensors.items()}
    chosen = Corruptible.of(rows, signature)
    assert set(chosen.inputs) == CHANGED[make]
    assert chosen.tokens == (make in TOKENS)
    for name, kind in {**chosen.hard, **chosen.mild}.items():
        first, again = (chosen.copy(rows, kind, np.random.default_rng(1)) for _ in range(2))
        for one, x in before.items():
            np.testing.assert_array_equal(rows.tensors[one], x)
            made = first.tensors[one]
            assert (made.shape, made.dtype) == (x.shape, x.dtype)
            np.testing.assert_array_equal(made, again.tensors[one])
            if one not in CHANGED[make]:
                np.testing.assert_array_equal(made, x)
            elif x.dtype.kind != "f":
                assert x.min() <= made.min() and made.max() <= x.max()
        share = chosen.changed(rows, first).mean()
        if (make, name) in NOTHING:
            assert share == 0
        elif name in chosen.hard:
            assert share > 0.5, name
        else:
            assert share > 0, name


def test_rows_are_changed_where_any_of_their_numbers_is():
    rows, signature = pixels()
    chosen = Corruptible.of(rows, signature)
    copy = Rows({"x": rows.tensors["x"].copy()})
    copy.tensors["x"][[3, 8], 2, 1, 0] ^= 1
    assert np.flatnonzero(chosen.changed(rows, copy)).tolist() == [3, 8]
    black_and_white = Rows({"x": np.where(rows.tensors["x"] > 127, 255, 0).astype(np.uint8)})
    chosen = Corruptible.of(black_and_white, signature)
    scaled = chosen.copy(black_and_white, corruption.HARD["scaled by 2"], drawn())
    assert not chosen.changed(black_and_white, scaled).any()


def test_rows_that_are_all_alike_have_nothing_to_corrupt():
    rows, signature = signed({"ids": np.full((COUNT, LENGTH), 7)}, {"ids": 9})
    chosen = Corruptible.of(rows, signature)
    assert not chosen.inputs
    assert chosen.for_fitting(rows, drawn()) == []
    copy = chosen.copy(rows, corruption.one_token, drawn())
    assert not chosen.changed(rows, copy).any()


def test_the_kinds_are_what_their_names_say():
    rows, signature = pictures()
    x = rows.tensors["x"]
    about = Corruptible.of(rows, signature).inputs["x"]
    random = np.random.default_rng(0)
    made = {name: kind(x, about, random) for name, kind in corruption.HARD.items()}
    np.testing.assert_allclose(made["scaled by 2"], 2 * x)
    flat = made["constants"].reshape(COUNT, -1)
    assert (flat == flat[:, :1]).all()
    assert {about.low, about.high} <= set(flat[:, 0].tolist())
    shuffled = made["positions shuffled"].reshape(COUNT, -1)
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(x.reshape(COUNT, -1)))
    assert (made["noise 0.5"] - x).std() == pytest.approx(0.5 * x.std(), rel=0.1)
    assert abs(np.corrcoef(made["pure noise"].ravel(), x.ravel())[0, 1]) < 0.1
    mixed = corruption.MILD["two mixed"](x, about, random)
    assert mixed.min() >= x.min() and mixed.max() <= x.max()


def test_pixels_are_corrupted_as_floats_are():
    rows, signature = pixels()
    x = rows.tensors["x"].astype(np.float32)
    chosen = Corruptible.of(rows, signature)
    doubled = chosen.copy(rows, corruption.HARD["scaled by 2"], drawn()).tensors["x"]
    np.testing.assert_array_equal(doubled, (2 * x).clip(0, 255))
    noisy = chosen.copy(rows, corruption.MILD["noise 0.2"], drawn()).tensors["x"]
    inside = (x > 80) & (x < 176)  # three deviations of the noise from the ends
    assert (noisy - x)[inside].std() == pytest.approx(0.2 * x.std(), rel=0.1)
    constants = chosen.copy(rows, corruption.constant, drawn()).tensors["x"].reshape(COUNT, -1)
    assert (constants == constants[:, :1]).all() and len(set(constants[:, 0].tolist())) > 10


def test_shuffled_tokens_stay_real_and_in_their_row():
    rows, signature = texts()
    kind = corruption.MILD_TOKENS["tokens shuffled"]
    made = Corruptible.of(rows, signature).copy(rows, kind, drawn())
    ids, before = made.tensors["ids"], rows.tensors["ids"]
    np.testing.assert_array_equal(np.sort(ids), np.sort(before))
    np.testing.assert_array_equal(ids[:, 0], before[:, 0])
    np.testing.assert_array_equal(ids == 0, before == 0)


@pytest.mark.parametrize("make", CHANGED, ids=lambda make: make.__name__)
def test_heads_are_fitted_on_more_than_twice_as_many(make):
    rows, signature = make()
    chosen = Corruptible.of(rows, signature)
    made = chosen.for_fitting(rows, drawn())
    assert sum(map(len, made)) > (1 if make in TOKENS else 2) * len(rows)
    for part in made:
        assert part.shapes == rows.shapes
        assert {n: t.dtype for n, t in part.tensors.items()} == {
            n: t.dtype for n, t in rows.tensors.items()
        }
    whole = np.concatenate([part.tensors[min(CHANGED[make])] for part in made])
    assert len(np.unique(whole.reshape(len(whole), -1), axis=0)) > 8


@pytest.mark.parametrize("make", CHANGED, ids=lambda make: make.__name__)
def test_one_row_can_be_corrupted(make):
    rows, signature = make()
    made = Corruptible.of(rows, signature).for_fitting(rows[:1], drawn())
    assert made and all(len(part) for part in made)
