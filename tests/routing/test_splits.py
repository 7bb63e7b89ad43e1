"""Splits by content: no row stands in two of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skipserve.errors import ConfigError
from skipserve.runtime.rows import Rows
from skipserve.signature import BATCH, Signature, TensorSpec
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import SHARES, SHARES_BESIDE, Labelled, Splits
from skipserve.sources.splits import split_rows as split_of_network
from skipserve.sources.values import Values
from skipserve.tasks import Score

ANSWER = TensorSpec(name="y", dtype="float32", shape=(BATCH, 1))
X = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3))
IDS = TensorSpec(name="ids", dtype="int64", shape=(BATCH, "length"))
MASK = TensorSpec(name="mask", dtype="int64", shape=(BATCH, "length"))


def split_rows(rows: Labelled, beside: Labelled | None = None, seed: int = 0) -> Splits:
    """Split rows of a network that takes what they hold; it has no mask."""
    inputs = tuple(one for one in (X, IDS) if one.name in rows.rows.tensors)
    signature = Signature(inputs=inputs, outputs=(ANSWER,))
    return split_of_network(rows, signature, beside, seed)


def data(count=4_000, copies=2, seed=0):
    """Rows of two inputs, each standing there more than once, and labels that tell which."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count // copies, 3)).astype(np.float32).repeat(copies, axis=0)
    ids = rng.integers(0, 9, (count // copies, 2)).repeat(copies, axis=0)
    order = rng.permutation(len(x))
    labels = np.arange(count // copies).repeat(copies)
    return Labelled(Rows({"x": x[order], "ids": ids[order]}), labels[order])


def parts(splits):
    return [splits.fit, splits.propose, splits.certify, splits.test]


def keys(part):
    tensors = part.rows.tensors
    pairs = zip(tensors["x"], tensors["ids"], strict=True)
    return {x.tobytes() + ids.tobytes() for x, ids in pairs}


def test_duplicates_never_straddle_and_no_row_is_lost():
    whole = data()
    made = parts(split_rows(whole))
    assert sum(map(len, made)) == len(whole)
    for i, one in enumerate(made):
        for other in made[i + 1 :]:
            assert not keys(one) & keys(other)
    np.testing.assert_allclose([len(one) / len(whole) for one in made], SHARES, atol=0.04)
    known = dict(zip(whole.labels.tolist(), whole.rows.tensors["x"], strict=True))
    for one in made:  # labels went with their rows
        for row, label in zip(one.rows.tensors["x"], one.labels, strict=True):
            assert (known[label] == row).all()


def test_the_same_rows_give_the_same_splits_whatever_their_order():
    whole = data()
    order = np.random.default_rng(1).permutation(len(whole))
    shuffled = Labelled(whole.rows[order], whole.labels[order])
    for one, other in zip(parts(split_rows(whole)), parts(split_rows(shuffled)), strict=True):
        for name, tensor in one.rows.tensors.items():
            np.testing.assert_array_equal(tensor, other.rows.tensors[name])


def test_the_first_rows_of_a_split_are_of_every_class_though_the_file_is_sorted_by_it():
    whole = data(copies=1)
    classes = np.arange(len(whole)) // 1_000  # a folder of pictures is read class by class
    beside = Labelled(Rows({"x": whole.rows.tensors["x"] + 1, "ids": whole.rows.tensors["ids"]}))
    by_class = Labelled(whole.rows, classes)
    beside = Labelled(beside.rows, classes)
    for made in (split_rows(by_class), split_rows(by_class, beside)):
        for one in parts(made):
            first = np.bincount(one.labels[:100], minlength=4)
            assert first.min() >= 10, first


def test_rows_of_a_query_stand_together_in_their_split():
    rows = np.random.default_rng(0).standard_normal((1_200, 3)).astype(np.float32)
    of_row = np.random.default_rng(1).permutation(np.repeat(np.arange(300), 4))
    for one in parts(split_rows(lists(of_row.tolist(), rows))):
        queries = one.queries.reshape(-1, 4)
        assert (queries == queries[:, :1]).all()


def test_another_seed_is_another_split():
    whole = data()
    first, other = split_rows(whole, seed=0), split_rows(whole, seed=1)
    assert keys(first.certify) != keys(other.certify)


def test_rows_to_fit_on_are_in_no_other_split():
    whole = data()
    beside = Labelled(whole.rows[np.arange(500)])
    made = split_rows(whole, beside)
    assert keys(made.fit) == keys(beside)
    assert len(made.fit) == len(beside)
    rest = parts(made)[1:]
    for one in rest:
        assert not keys(one) & keys(beside)
    left = len(keys(whole) - keys(beside))
    shares = [len(keys(one)) / left for one in rest]
    assert shares == pytest.approx(SHARES_BESIDE[1:], abs=0.05)


def test_a_split_may_be_empty_where_there_are_few_rows():
    few = Labelled(Rows({"x": np.zeros((3, 3), np.float32)}))
    assert sum(map(len, parts(split_rows(few)))) == 3


def lists(ids, rows):
    """Rows of queries that a column names."""
    column = {"query": np.array(ids, dtype=None if isinstance(ids[0], int | str) else object)}
    task = Score(tolerance=1, top=1)
    return with_queries(Labelled(Rows({"x": rows})), task, column, "query", "rows.npz")


@pytest.mark.parametrize(
    "named", [lambda i: i, lambda i: 10_000 + i, str, float, lambda i: f"q{i}"]
)
def test_rows_to_fit_on_are_known_by_their_content_however_their_queries_are_numbered(named):
    rows = np.random.default_rng(0).standard_normal((1_200, 3)).astype(np.float32)
    of_row = np.repeat(np.arange(300), 4)
    whole = lists(of_row.tolist(), rows)
    # The first 100 queries were trained on; of the hundredth, one document.
    seen = slice(397)
    beside = lists([named(one) for one in of_row[seen].tolist()], rows[seen])
    made = split_rows(whole, beside)
    assert len(made.fit) == len(beside)
    left = np.concatenate([one.rows.tensors["x"] for one in parts(made)[1:]])
    assert {one.tobytes() for one in left} == {one.tobytes() for one in rows[400:]}


def test_texts_to_fit_on_are_known_though_another_file_pads_them_otherwise():
    def texts(count, width):
        values = np.empty(count, object)
        values[:] = [[f"query {i}", "a passage"] for i in range(count)]
        ids = np.zeros((count, width), np.int64)
        ids[:, 0] = np.arange(count)
        return Labelled(Rows({"ids": ids}), values=values)

    made = split_rows(texts(300, 9), texts(100, 7))
    left = np.concatenate([one.rows.tensors["ids"][:, 0] for one in parts(made)[1:]])
    assert sorted(left.tolist()) == list(range(100, 300))


def test_tokens_to_fit_on_are_known_though_another_file_pads_them_otherwise():
    signature = Signature(inputs=(IDS, MASK), outputs=(ANSWER,), mask="mask")
    lengths = np.random.default_rng(0).integers(2, 8, 300)

    def padded(count, width, pad):
        real = np.arange(width) < lengths[:count, None]
        ids = np.where(real, np.arange(count)[:, None] + np.arange(width), pad)
        return Labelled(Rows({"ids": ids, "mask": real.astype(np.int64)}), np.arange(count))

    made = split_of_network(padded(300, 12, 1), signature, padded(100, 7, 0))
    left = np.concatenate([one.labels for one in parts(made)[1:]])
    assert sorted(left.tolist()) == list(range(100, 300))
    # Nor does the split of a row depend on the longest row of its file.
    narrow, wide = (split_of_network(padded(300, width, 0), signature) for width in (7, 12))
    for one, other in zip(parts(narrow), parts(wide), strict=True):
        assert one.labels.tolist() == other.labels.tolist()


def tokens(given):
    """Letters, padded to the longest of the file."""
    texts = [one if isinstance(one, str) else " ".join(one) for one in given]
    longest = max(map(len, texts))
    return {"ids": np.array([[*map(ord, text.ljust(longest))] for text in texts])}


@pytest.mark.parametrize("columns", [("body",), ("query", "body")])
@pytest.mark.parametrize(("rows", "fit"), [(".npz", ".jsonl"), (".jsonl", ".npz")])
def test_texts_to_fit_on_are_known_whatever_file_they_are_in(tmp_path, columns, rows, fit):
    signature = Signature(inputs=(IDS,), outputs=(ANSWER,))

    def read(texts, kind):
        table = {"query": [f"to {one}" for one in texts], "body": texts}
        file = tmp_path / f"{len(texts)}{kind}"
        if kind == ".npz":
            np.savez(file, **table)
        else:
            lines = [
                dict(zip(table, pair, strict=True)) for pair in zip(*table.values(), strict=True)
            ]
            file.write_text("\n".join(map(json.dumps, lines)))
        values = Values(tokens, "text", columns)
        return match(read_columns(file), signature, {}, None, file.name, values)

    known = [f"text {i}" for i in range(100)]
    later = [f"a longer text {i}" for i in range(200)]
    made = split_rows(read([*known, *later], rows), read(known, fit))
    left = [one for part in parts(made)[1:] for one in part.values]
    bodies = [one if isinstance(one, str) else one[1] for one in left]
    assert sorted(bodies) == sorted(later)


EMPTY = [
    (np.array([1.0, 2.0, np.nan, np.nan]), "row 2 is nan"),
    (np.array(["a", "b", np.nan, np.nan], object), "row 2 is nan"),
    (np.array(["a", "", "b", ""]), "row 1 is ''"),
    (np.array(["a", "b", "c", " "], object), "row 3 is ' '"),
]


@pytest.mark.parametrize(("queries", "says"), EMPTY)
def test_rows_without_a_query_are_not_one_query(queries, says):
    rows = Labelled(Rows({"x": np.zeros((4, 1), np.float32)}))
    task = Score(tolerance=1, top=1)
    with pytest.raises(ConfigError, match=f"rows.npz: the query of {says}") as refused:
        with_queries(rows, task, {"query": queries}, "query", "rows.npz")
    assert "\n" not in str(refused.value)


def test_a_pair_whose_query_is_empty_is_refused_and_a_query_may_be_called_nan():
    pairs = np.empty(2, object)
    pairs[:] = [["nan", "a"], ["", "b"]]
    rows = Labelled(Rows({"x": np.zeros((2, 1), np.float32)}), values=pairs)
    task = Score(tolerance=1, top=1)
    with pytest.raises(ConfigError, match="the query of row 1 is ''"):
        with_queries(rows, task, {}, None, "pairs.jsonl")
    named = {"query": np.array(["nan", "NaN"])}
    found = with_queries(rows, task, named, "query", "pairs.jsonl").queries
    assert found[0] != found[1]
