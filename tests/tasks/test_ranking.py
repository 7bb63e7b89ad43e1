"""Reranking is certified by query: from a file of candidate lists to the certificate and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from ranker import BUILD, LATER, LISTED, QUERIES, RISK, TOP, Made
from typer.testing import CliRunner

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
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
from skipserve.sources.splits import Labelled, split_rows
from skipserve.tasks import Score, Units

pytestmark = pytest.mark.slow


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
    again = split_rows(parts[1], made.artifact.manifest.signature, beside)
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
    # Counters that stay 0 would ring the alert on evidence that fails.
    assert not any(
        one.labels.get("model") == "ranker"
        for family in REGISTRY.collect()
        for one in family.samples
        if one.name.startswith("skipserve_evidence")
    )


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
