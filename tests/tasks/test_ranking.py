"""Reranking is certified by query: from a file of candidate lists to the certificate and back."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from residual_graphs import WIDTH, Graph
from typer.testing import CliRunner

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth, measure_worth
from skipserve.certification import candidates
from skipserve.certification.candidates import propose_candidates
from skipserve.certification.certifying import certify_artifact
from skipserve.certification.trial import sha256_of
from skipserve.cli import app
from skipserve.errors import ConfigError
from skipserve.intervals import p_value
from skipserve.protocols.messages import RawRequest
from skipserve.reporting.inspect import inspect_model
from skipserve.reporting.model import Model
from skipserve.reporting.sample import Sample
from skipserve.reporting.served import certified_points, routed_at
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.schema import parse
from skipserve.service.service import Service
from skipserve.signature import BATCH, Signature, TensorSpec
from skipserve.sources.matching import match
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import Labelled, split_rows
from skipserve.sources.values import Values
from skipserve.tasks import Classify, Score, Units

pytestmark = pytest.mark.slow
RISK, TOP, LISTED, QUERIES, LATER = 0.1, 2, 6, 600, 200
WIDE = 16
INPUT = TensorSpec(name="ids", dtype="int64", shape=(BATCH, 2))
OUTPUT = TensorSpec(name="y", dtype="float32", shape=(BATCH, 1))
SMALL, MOVE = np.array([6], np.float32), np.full((1, WIDE), 0.5, np.float32)
BUILD = f"""
name = "ranker"
[source]
onnx = "net.onnx"
[data]
rows = "rows.npz"
query = "query"
[task]
kind = "score"
tolerance = 0.8
top = {TOP}
[exits]
at = [0, 2]
first = 0
hidden = 0
corrupted = false
[router]
signal = "norm"
risks = [{RISK}]
[serving]
risk = {RISK}
"""


def network() -> onnx.ModelProto:
    """A residual network whose blocks move rows of small norm, and no others."""
    made = Graph()
    x = made.weigh("x", WIDTH, WIDE)
    for _ in range(3):
        y = made.weigh(x, WIDE, WIDE)
        square = made.op("ReduceSum", made.op("Mul", y, y), made.constant(np.array([1])))
        small = made.op("Relu", made.op("Sub", made.constant(SMALL), square))
        x = made.op("Add", x, made.op("Mul", small, made.constant(MOVE)))
    return made.model(made.weigh(x, WIDE, 1), shape=["batch", 1])


class Made:
    """A ranker that was brought, and rows of later queries."""

    def __init__(self, folder: Path) -> None:
        onnx.save(network(), folder / "net.onnx")
        count = (QUERIES + LATER) * LISTED
        rows = np.random.default_rng(0).standard_normal((count, WIDTH)).astype(np.float32)
        query = np.repeat(np.arange(QUERIES + LATER), LISTED)
        known = slice(QUERIES * LISTED)
        # A query's rows need not stand together.
        order = np.random.default_rng(1).permutation(QUERIES * LISTED)
        np.savez(folder / "rows.npz", x=rows[known][order], query=query[known][order])
        (folder / "ranker.toml").write_text(BUILD)
        self.build = read_build_file(folder / "ranker.toml")
        self.sourced = Sourced(self.build)
        self.said: list[str] = []
        run_steps(self.build, lambda epoch: None, self.said.append, sourced=self.sourced)
        self.artifact: Artifact = open_artifact(self.build.artifact)
        self.folder, self.rows, self.query = folder, rows[known.stop :], query[known.stop :]
        certify = self.sourced.rows.certify
        columns = {"x": certify.rows.tensors["x"], "query": certify.queries}
        np.savez(folder / "certify.npz", **columns)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("ranking"))


def arrays_of(file: Path) -> dict[str, NDArray[np.generic]]:
    with np.load(file) as arrays:
        return dict(arrays)


def other_documents(
    served: NDArray[np.float32], full: NDArray[np.float32], query: NDArray[np.int64], top: int
) -> list[bool]:
    """By query, whether another document is among the first; counted without the package."""
    found = []
    for one in np.unique(query):
        rows = np.flatnonzero(query == one)
        best = [
            {rows[i] for i in np.argsort(-scores[rows, 0], kind="stable")[:top]}
            for scores in (served, full)
        ]
        found.append(best[0] != best[1])
    return found


def test_queries_are_counted_and_the_bound_holds_for_later_ones(made: Made) -> None:
    engine = Engine(made.artifact)
    certificate = engine.certified()[RISK]
    certify = made.sourced.rows.certify
    assert certify.queries is not None
    assert certificate.samples == len(np.unique(certify.queries)) < len(certify) / 4
    full = engine.run_batches(certify.rows, engine.off, 64).answers
    routed = engine.run_batches(certify.rows, engine.setting(RISK), 64)
    wrong = other_documents(routed.answers, full, certify.queries.astype(np.int64), TOP)
    assert certificate.disagreements == sum(wrong) > 0
    assert certificate.p_value == p_value(sum(wrong), len(wrong), RISK) <= 0.05
    # A score may be far from that of full depth, and the query's first documents the same.
    assert (~engine.manifest.task.agree(routed.answers, full)).sum() != sum(wrong)
    assert certificate.run_rate < 0.7
    later, whole = engine.predict(made.rows, risk=RISK), engine.predict(made.rows)
    seen = other_documents(later.answers, whole.answers, made.query, TOP)
    assert np.mean(seen) < RISK + 3 * (RISK / LATER) ** 0.5
    assert any(f"of {certificate.samples} disagree" in line for line in made.said)


def test_candidates_stand_where_queries_disagree_about_as_often_as_is_asked(made: Made) -> None:
    tried = [one.disagreements for one in Engine(made.artifact).certified()[RISK].tried]
    assert tried == sorted(tried)
    rates = [one / Engine(made.artifact).certified()[RISK].samples for one in tried]
    assert RISK / 5 < rates[-1] < RISK


def test_candidates_are_judged_on_whole_queries(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, propose = tmp_path / "ranker", made.sourced.rows.propose
    shutil.copytree(made.artifact.directory, folder)
    # Fewer rows than a query has: there are 90 queries, and so many are judged at least.
    monkeypatch.setattr(candidates, "MOST_ROWS", LISTED - 1)
    propose_candidates(folder, propose.rows, queries=propose.queries)
    again = open_artifact(folder).certificates.candidates
    assert again == made.artifact.certificates.candidates != ()


def test_a_query_is_never_split(made: Made) -> None:
    splits = made.sourced.rows
    parts = [splits.fit, splits.propose, splits.certify, splits.test]
    queries = [set(one.queries.tolist()) for one in parts if one.queries is not None]
    assert len(queries) == 4
    assert sum(map(len, queries)) == len(set().union(*queries)) == QUERIES
    assert sum(map(len, parts)) == QUERIES * LISTED
    beside = Labelled(parts[1].rows[:1], queries=parts[1].queries[:1])  # type: ignore[index]
    again = split_rows(parts[1], beside)
    whole = (parts[1].queries != beside.queries[0]).sum()  # type: ignore[index]
    assert len(again.propose) + len(again.certify) + len(again.test) == whole


def test_the_verdict_and_the_report_speak_of_queries(made: Made) -> None:
    worth = measure_worth(made.artifact.directory, made.sourced.rows, RISK)
    assert isinstance(worth, Worth)
    assert "of the test queries" in worth.sentence()
    assert "another document is among the first 2 of a query" in worth.sentence()
    splits = made.sourced.rows
    assert splits.test.queries is not None
    full = Engine(made.artifact).predict(splits.test.rows.tensors["x"]).answers
    routed = Engine(made.artifact).predict(splits.test.rows.tensors["x"], risk=RISK).answers
    wrong = other_documents(routed, full, splits.test.queries.astype(np.int64), TOP)
    assert worth.disagreement == np.mean(wrong)
    sample = Sample(Rows({"x": made.rows}), None, "rows", made.query.astype(np.uint64))
    engine = Engine(made.artifact)
    whole = engine.run_batches(sample.rows, engine.off, 16)
    (point,) = certified_points(engine, sample, whole, 16)
    later = engine.run_batches(sample.rows, engine.setting(RISK), 16).answers
    seen = other_documents(later, whole.answers, made.query, TOP)
    assert (point.seen.count, point.seen.total) == (sum(seen), LATER)
    routed = routed_at(engine, sample, whole, RISK, 16)
    assert routed.all_rows.total == LATER >= routed.skipped.total > LATER / 2
    assert routed.skipped.count == routed.all_rows.count


def test_a_certificate_file_is_counted_again_by_query(made: Made, tmp_path: Path) -> None:
    file, data = tmp_path / "ranker.json", made.folder / "certify.npz"
    artifact = str(made.artifact.directory)
    run = CliRunner().invoke(app, ["attest", artifact, "--out", str(file)])
    assert run.exit_code == 0, run.output
    assert json.loads(file.read_text())["task"]["top"] == TOP
    asked = ["verify", str(file), artifact, "--data", str(data)]
    run = CliRunner().invoke(app, [*asked, "--query", "query"])
    assert run.exit_code == 0, run.output
    assert "queries disagree; counted anew" in run.output
    # The column was named in the build file.
    assert made.artifact.manifest.query == "query"
    assert CliRunner().invoke(app, asked).output == run.output
    with np.load(data) as arrays:
        one_more = {"x": arrays["x"], "query": np.where(arrays["query"] % 7, arrays["query"], 1)}
    # Lists of the same lengths, of other rows.
    one_more["fold"] = np.roll(arrays_of(data)["query"], 1)
    np.savez(data.with_name("other.npz"), **one_more)
    asked[-1] = str(data.with_name("other.npz"))
    for column in ("query", "fold"):
        run = CliRunner().invoke(app, [*asked, "--query", column])
        assert run.exit_code == 16
        assert "name the column that says which query a row belongs to with --query" in run.output
    run = CliRunner().invoke(app, [*asked, "--query", "querry"])
    assert "did you mean 'query'?" in str(run.exception)


def test_single_rows_of_traffic_are_no_evidence(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    Service(Engine(made.artifact), ServingConfig(risk=RISK))
    assert not caplog.messages
    service = Service(Engine(made.artifact), ServingConfig(risk=RISK, evidence=1.0))
    (line,) = caplog.messages
    assert line.startswith("ranker draws no evidence, though evidence = 1: its certificate counts")
    # As archives have it, with every setting written.
    written = made.build.serving.model_dump()
    Service(Engine(made.artifact), parse(ServingConfig, written, "serving"))
    assert caplog.messages == [line]
    body = json.dumps({"inputs": made.rows[:50].tolist()}).encode()
    (reply,) = service.answer([RawRequest(body, {})])
    assert reply.headers["x-skipserve-risk"] == f"{RISK:g}"
    told = json.loads(reply.body)["outputs"]
    # Rows that give evidence run everything.
    assert sum(one["depth_run"] == 3 for one in told) < 50


@pytest.mark.parametrize(
    ("said", "by", "says"),
    [
        ('query = "query"\n', "", "name the column that says which query a row belongs to"),
        (f"top = {TOP}\n", "", "'query' names queries, and the task counts rows"),
        (f"top = {TOP}", "top = 6", "no query has more than 6 documents"),
        ("[router]", '[router]\ncertificate = "earned"', "does not go with task.top: evidence is"),
        ("[serving]", "[serving]\nevidence = 0.1", "evidence = 0.1 does not go with task.top"),
        ("[router]", '[router]\npolicy = "skip"', "policy = 'skip' does not go with task.top"),
        ("[exits]", '[export]\nformats = ["torchscript"]\n[exits]', "'torchscript' in export"),
        ('"query"', '"qid"', "no column 'qid' of queries"),
    ],
)
def test_what_cannot_count_queries_is_one_line(made: Made, said: str, by: str, says: str) -> None:
    file = made.folder / "wrong.toml"
    file.write_text(BUILD.replace(said, by).replace('"ranker"', '"wrong"'))
    with pytest.raises(ConfigError, match=says) as refused:
        build = read_build_file(file)
        rows = Sourced(build).rows.certify
        assert build.brought is not None
        Units(build.brought.task.task(1), len(rows), rows.queries)
    assert "\n" not in str(refused.value)


def test_a_certificate_is_bound_to_which_rows_belong_together(made: Made) -> None:
    count, task = len(made.rows), Score(tolerance=1, top=TOP)
    rows, query = Rows({"x": made.rows}), made.query.astype(np.uint64)

    def digest(queries: NDArray[np.uint64]) -> str:
        return sha256_of(rows, Units(task, count, queries))

    assert digest(query) == digest(9_999 - query) != digest(np.roll(query, 1))
    assert sha256_of(rows, Units(Score(tolerance=1), count)) == rows.sha256


def test_inspect_counts_queries(made: Made) -> None:
    model = Model("ranker", made.artifact.directory, None, made.artifact)
    order = np.random.default_rng(2).permutation(len(made.rows))
    rows, query = made.rows[order], made.query[order]
    sample = Sample(Rows({"x": rows}), None, "rows", query.astype(np.uint64))
    found = inspect_model(model, sample, RISK)
    engine = Engine(made.artifact)
    full = engine.predict(rows).answers
    for at, blocks in enumerate([0, 2]):
        early = engine.run_batches(Rows({"x": rows}), engine.fixed(at), 64).answers
        wrong = other_documents(early, full, query, TOP)
        assert found.agreement[at] == pytest.approx(1 - np.mean(wrong))
        assert found.readings.blocks[at] == blocks
    assert found.prospect is not None
    assert found.prospect.unit == "queries"
    # Two blocks change the first documents of fewer queries than allowed, the stem's of more.
    assert found.prospect.fixed == 2
    assert found.prospect.fixed_disagreement == pytest.approx(1 - found.agreement[1])
    assert f"{1 - found.agreement[1]:.2%} of the queries (allowed: 10%)" in found.verdict
    units = Units(model.task, len(sample), sample.queries)
    few = inspect_model(model, sample[units.some(20 * LISTED)], RISK).verdict
    assert few.startswith("These 20 queries cannot tell")
    (note,) = found.notes
    assert note.startswith(f"Agreement is that of {LATER} queries: they disagree where another")
    lone = np.append(query, np.arange(3) + query.max() + 1).astype(np.uint64)
    more = Sample(Rows({"x": np.concatenate([rows, rows[:3]])}), None, "rows", lone)
    (note,) = inspect_model(model, more, RISK).notes
    assert f" {LATER} queries (3 more have too few documents to disagree): they disagree" in note
    some = sample[units.some(100)]
    assert np.unique(some.queries, return_counts=True)[1].tolist() == [LISTED] * 16


def test_too_short_lists_are_not_counted_and_it_is_said(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "ranker"
    shutil.copytree(made.artifact.directory, folder)
    certify, said = made.sourced.rows.certify, []
    assert certify.queries is not None
    alone = np.arange(len(made.rows), dtype=np.uint64)
    rows = np.concatenate([certify.rows.tensors["x"], made.rows])
    queries = np.concatenate([certify.queries, alone])
    written = certify_artifact(folder, rows, [RISK], queries=queries, say=said.append)
    (one,) = written.certificates
    before = Engine(made.artifact).certified()[RISK]
    assert (one.samples, one.disagreements) == (before.samples, before.disagreements)
    assert one.too_short == len(alone)
    short = f"queries ({len(alone):,} more have too few documents to disagree)"
    assert said[0] == f"note: {one.samples} {short}"
    refused = certify_artifact(folder, rows, [0.001], queries=queries).refusals
    assert refused[0].reason.startswith(f"{one.samples} {short} cannot certify 0.001")


def test_without_queries_nothing_is_certified(made: Made) -> None:
    with pytest.raises(ConfigError, match="nothing says which query"):
        certify_artifact(made.artifact.directory, made.rows, [RISK])


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
