"""Reranking is certified by query: from a file of candidate lists to the certificate and back."""

from __future__ import annotations

import json
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
from skipserve.building.bring import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth, measure_worth
from skipserve.certification.calibrate import certify_artifact
from skipserve.cli import app
from skipserve.errors import ConfigError
from skipserve.intervals import p_value
from skipserve.protocols.messages import RawRequest
from skipserve.reporting.sample import Sample
from skipserve.reporting.served import certified_points, routed_at
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.service.service import Service
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import Labelled, split_rows
from skipserve.tasks import Classify, Score, Units

pytestmark = pytest.mark.slow
RISK, TOP, LISTED, QUERIES, LATER = 0.1, 2, 6, 600, 200
WIDE = 16
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
    with np.load(data) as arrays:
        one_more = {"x": arrays["x"], "query": np.where(arrays["query"] % 7, arrays["query"], 1)}
    np.savez(data.with_name("other.npz"), **one_more)
    asked[-1] = str(data.with_name("other.npz"))
    assert CliRunner().invoke(app, [*asked, "--query", "query"]).exit_code == 16
    run = CliRunner().invoke(app, [*asked, "--query", "querry"])
    assert "did you mean 'query'?" in str(run.exception)


def test_single_rows_of_traffic_are_no_evidence(made: Made) -> None:
    service = Service(Engine(made.artifact), ServingConfig(risk=RISK, evidence=1.0))
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


def test_bring_writes_what_is_asked(tmp_path: Path) -> None:
    options = BringOptions(
        *("net.onnx", tmp_path / "rows.npz"), task="score", tolerance=1.0, top=3, query="query"
    )
    text = build_text(options, "net", tmp_path)
    assert "\ntop = 3 " in text
    assert '\nquery = "query"\n' in text


scores = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.inf, np.nan]), min_size=1, max_size=30)


@given(st.data())
def test_units_are_what_a_loop_over_queries_finds(data: st.DataObject) -> None:
    full = np.array(data.draw(scores), np.float32)[:, None]
    rows, top = len(full), data.draw(st.integers(1, 3))
    some = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=rows, max_size=rows)
    served = np.array(data.draw(some), np.float32)[:, None]
    query = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    if np.bincount(query).max() <= top:
        return
    units = Units(Score(tolerance=1, top=top), rows, query.astype(np.uint64))
    expected = []
    for one in np.unique(query):
        mine = np.flatnonzero(query == one)
        given_here = full[mine, 0]
        if not np.isfinite(given_here).all():
            expected.append(True)  # at full depth it is an error, and routed it is none
            continue
        last = np.sort(given_here)[::-1][:top].min()
        taken = np.argsort(-served[mine, 0], kind="stable")[:top]
        expected.append(bool((given_here[taken] < last).any()))
    assert units.differ(served, full).tolist() == expected
    assert not units.differ(full, full).any()


def test_where_rows_count_by_themselves_units_are_rows() -> None:
    task = Classify(classes=2)
    units = Units(task, 3)
    served, full = np.eye(2)[[0, 1, 1]], np.eye(2)[[0, 0, 1]]
    assert units.count == 3
    assert units.differ(served, full).tolist() == [False, True, False]
    assert units.any(np.array([True, False, True])).tolist() == [True, False, True]
