"""Queries: which rows belong together, and what is counted of them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranker import INPUT, OUTPUT

from skipserve.building.bring_file import BringOptions, build_text
from skipserve.errors import ConfigError
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature
from skipserve.sources.matching import match
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import Labelled
from skipserve.sources.values import Values
from skipserve.tasks import Classify, Score, Units


def test_a_pair_belongs_to_the_query_that_is_its_first_text() -> None:
    pairs = np.empty(4, object)
    pairs[:] = [["a", "x"], ["b", "x"], ["a", "y"], ["b", "z"]]
    rows = Labelled(Rows({"x": np.zeros((4, 1), np.float32)}), values=pairs)
    found = with_queries(rows, Score(tolerance=1, top=1), {}, None, "pairs.jsonl").queries
    assert found is not None
    assert found[0] == found[2] != found[1] == found[3]
    assert with_queries(rows, Score(tolerance=1), {}, None, "pairs.jsonl") is rows
    again = Labelled(rows.rows[::-1], values=pairs[::-1])
    same = with_queries(again, Score(tolerance=1, top=1), {}, None, "pairs.jsonl").queries
    assert same is not None
    assert same[::-1].tolist() == found.tolist()


def test_queries_may_be_a_column_of_texts() -> None:
    signature = Signature(inputs=(INPUT,), outputs=(OUTPUT,))
    values = Values(lambda given: {"ids": np.array([[len(a), len(b)] for a, b in given])}, "text")
    columns = {
        "query": np.array(["q", "q", "rr", "rr"], object),
        "passage": np.array([*"abcd"], object),
    }
    named = replace(values, columns=("query", "passage"))
    found = match(columns, signature, {}, None, "pairs", named, "query")
    assert found.rows.tensors["ids"].tolist() == [[1, 1], [1, 1], [2, 1], [2, 1]]
    # Where none is named, it is one of two: the passages alone are not what the model reads.
    with pytest.raises(ConfigError, match=r"2 columns of texts among .* with --text"):
        match(columns, signature, {}, None, "pairs", values, "query")
    # Numbers, or a column that is not that of queries, are no texts.
    numbered = {**columns, "query": np.arange(4)}
    single = Values(lambda given: {"ids": np.array([[len(a), 0] for a in given])}, "text")
    assert match(numbered, signature, {}, None, "texts", single, "query").values is not None


@pytest.mark.parametrize("query", ["query", "fold", None])
def test_a_ranker_reads_later_files_as_it_was_built(query: str | None) -> None:
    signature = Signature(inputs=(INPUT,), outputs=(OUTPUT,))
    values = Values(
        lambda given: {"ids": np.array([[len(a), len(b)] for a, b in given])},
        "text",
        built_with=("query", "passage"),
    )
    columns = {
        "passage": np.array([*"abcd"], object),
        "fold": np.array([1, 1, 2, 2]),
        "query": np.array(["q", "q", "rr", "rr"], object),
        "other": np.array(["long"] * 4, object),
    }
    found = match(columns, signature, {}, None, "later", values, query)
    assert found.rows.tensors["ids"].tolist() == [[1, 1], [1, 1], [2, 1], [2, 1]]
    named = replace(values, columns=("query", "other"))
    found = match(columns, signature, {}, None, "later", named, query)
    assert found.rows.tensors["ids"].tolist() == [[1, 4], [1, 4], [2, 4], [2, 4]]
    # Passages without their queries are refused, and said in one line.
    del columns["query"], columns["other"]
    with pytest.raises(ConfigError, match="'query' and 'passage', which the model was") as refused:
        match(columns, signature, {}, None, "later", values, "fold")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("columns", [{"title": "a", "body": "bb"}, {"text": "bb"}])
def test_one_column_may_be_called_otherwise_later(columns: dict[str, str]) -> None:
    """Where it is there it is taken, else the only one."""
    signature = Signature(inputs=(INPUT,), outputs=(OUTPUT,))
    values = Values(
        lambda given: {"ids": np.array([[len(a), 0] for a in given])}, "text", built_with=("body",)
    )
    table = {name: np.array([text] * 2, object) for name, text in columns.items()}
    found = match(table, signature, {}, None, "later", values)
    assert found.rows.tensors["ids"][:, 0].tolist() == [2, 2]


def test_bring_writes_what_is_asked(tmp_path: Path) -> None:
    options = BringOptions(
        *("net.onnx", tmp_path / "rows.npz"), task="score", tolerance=1.0, top=3, query="query"
    )
    text = build_text(options, "net", tmp_path)
    assert "\ntop = 3 " in text
    assert '\nquery = "query"\n' in text


SCORES = [-1.0, 0.0, 0.5, 2.0]
ANY = [*SCORES, np.inf, -np.inf, np.nan]


@st.composite
def lists(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint64]]:
    """Scores as served and at full depth of queries of any length, and the query of each."""
    rows = draw(st.integers(1, 30))
    kinds = [draw(st.sampled_from([SCORES, ANY])) for _ in range(2)]
    served, full = (
        np.array(draw(st.lists(st.sampled_from(one), min_size=rows, max_size=rows)), np.float32)
        for one in kinds
    )
    query = draw(st.lists(st.sampled_from([3, 7, 7, 7, 7, 1]), min_size=rows, max_size=rows))
    return served[:, None], full[:, None], np.array(query, np.uint64)


def other(served: NDArray[np.float32], full: NDArray[np.float32], top: int) -> bool:
    """Whether one query disagrees, counted without the package."""
    if not (np.isfinite(served).all() and np.isfinite(full).all()):
        return bool(np.isfinite(served).all() != np.isfinite(full).all())
    last = np.sort(full)[::-1][top - 1]
    taken = sorted(range(len(full)), key=lambda i: (-served[i], i))[:top]
    return bool((full[taken] < last).any())


@given(lists(), st.integers(1, 3))
def test_units_are_what_a_loop_over_queries_finds(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint64]], top: int
) -> None:
    served, full, query = drawn
    task = Score(tolerance=1, top=top)
    _, first, sizes = np.unique(query, return_index=True, return_counts=True)
    longer = [query[i] for i, size in sorted(zip(first, sizes, strict=True)) if size > top]
    if not longer:
        with pytest.raises(ConfigError, match=f"no query has more than {sizes.max()} documents"):
            Units(task, len(query), query)
        return
    units = Units(task, len(query), query)
    assert (units.count, units.too_short) == (len(longer), len(sizes) - len(longer))
    expected = [other(served[query == one, 0], full[query == one, 0], top) for one in longer]
    alone = []
    for row in range(len(query)):
        one = full.copy()
        one[row] = served[row]
        mine = query == query[row]
        alone.append(query[row] not in longer or not other(one[mine, 0], full[mine, 0], top))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scores that are no numbers print nothing
        assert units.differ(served, full).tolist() == expected
        assert not units.differ(full, full).any()
        assert units.agree_alone(served, full).tolist() == alone
        depths = np.stack([served, full], axis=1)
        assert units.agree_by_depth(depths).tolist() == [[not one, True] for one in expected]
        assert units.agree_alone_by_depth(depths).tolist() == [[one, True] for one in alone]
    held = np.arange(len(query)) % 3 == 0
    assert units.any(held).tolist() == [bool(held[query == one].any()) for one in longer]


def test_queries_that_cannot_disagree_prove_nothing() -> None:
    query = np.array([0] * 11 + list(range(1, 2000)), np.uint64)
    units = Units(Score(tolerance=1, top=10), len(query), query)
    assert (units.count, units.too_short) == (1, 1999)


def test_some_queries_are_whole_and_enough() -> None:
    query = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 100)).astype(np.uint64)
    units = Units(Score(tolerance=1, top=20), len(query), query)
    for most, fewest, has in ((1_000, 5, 10), (1_000, 30, 30), (9_000, 5, 60)):
        rows = units.some(most, fewest)
        assert (np.diff(rows) > 0).all()
        names, sizes = np.unique(query[rows], return_counts=True)
        assert len(names) == has
        assert (sizes == 100).all()


def test_where_rows_count_by_themselves_units_are_rows() -> None:
    task = Classify(classes=2)
    units = Units(task, 3)
    served, full = np.eye(2)[[0, 1, 1]], np.eye(2)[[0, 0, 1]]
    assert units.count == 3
    assert units.differ(served, full).tolist() == [False, True, False]
    assert units.any(np.array([True, False, True])).tolist() == [True, False, True]
