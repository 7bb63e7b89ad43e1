"""The report: what is measured for it, and what it leaves out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from reports import DEPTH, FIGURES, curve, quiet

from skipserve.building.buildfile import read_build_file
from skipserve.building.products import export
from skipserve.certification.certify import shortest_fixed
from skipserve.errors import ConfigError
from skipserve.intervals import p_value
from skipserve.reporting.curves import CHANCES, baselines
from skipserve.reporting.inspect import columns, rows
from skipserve.reporting.model import find_model
from skipserve.reporting.page import draw_figures, write_report
from skipserve.reporting.readings import read_engine, read_network
from skipserve.reporting.report import measure
from skipserve.reporting.sample import Sample, take_sample
from skipserve.reporting.words import first_line
from skipserve.runtime.engine import Engine

pytestmark = pytest.mark.slow


def test_the_certified_points_are_the_certificates_and_hold_here_too(found):
    every = found.model.artifact.certificates.certificates
    made = [one for one in every if one.measure == "disagreement"]
    assert [one.certificate for one in found.points] == sorted(made, key=lambda one: one.risk)
    for one in found.points:
        assert one.tested.count == one.certificate.disagreements
        assert one.tested.low <= one.tested.value <= one.tested.high
        assert one.tested.value < one.certificate.risk
        assert one.seen.total == len(found.sample) == 600
        assert one.seen.low < one.certificate.risk
        assert one.run_rate == pytest.approx(one.certificate.run_rate, abs=0.05)


def test_curves_are_of_the_heads_that_answer(found):
    confidence = curve(found, "confidence")
    network = found.model.checkpoint.network
    shared = read_network(network, found.sample.inputs).by_depth().agrees.mean(axis=0)
    for one in found.points:
        blocks = max(one.run_rate * DEPTH, confidence.blocks[-1])
        drawn = np.interp(blocks, confidence.blocks[::-1], confidence.disagreement[::-1])
        assert drawn == pytest.approx(one.seen.value, abs=0.03)
        # The shared head, read as early, changes many more answers.
        assert np.interp(blocks, np.arange(DEPTH + 1), 1 - shared) > drawn + 0.05


def test_what_the_router_did_adds_up(found):
    routed = found.routed
    assert routed.risk == found.risk == 0.02  # the certified one nearest to 1 %
    assert sum(one.count for _, one in routed.by_class) == routed.all_rows.count
    assert sum(one.total for _, one in routed.by_class) == routed.all_rows.total == 600
    assert routed.skipped.total == (routed.depth_run < DEPTH).sum()
    assert routed.skipped.count == routed.all_rows.count  # a row that ran everything agrees
    assert (routed.depth_run[routed.held_back] == DEPTH).all()


def test_a_fixed_depth_is_certified_by_the_same_test(found):
    labels = np.zeros((1_000, 4), dtype=int)
    for at, wrong in enumerate((30, 4, 20, 0)):
        labels[:wrong, at] = 1
    readings = np.array([1, 2, 4, 6]), labels == labels[:, -1:]
    # At 1 % the careful depth 4 fails, so that depth 2, which would pass, is never reached.
    assert p_value(4, 1_000, 0.01) < 0.05 < p_value(20, 1_000, 0.01)
    assert shortest_fixed(*readings, 0.01, 0.95) == 6
    assert shortest_fixed(*readings, 0.03, 0.95) == 2
    assert shortest_fixed(*readings, 0.05, 0.95) == 1
    assert set(found.fixed) == {0.02, 0.05}
    assert found.fixed[0.05] <= found.fixed[0.02] <= DEPTH


def test_the_curves_end_where_they_must(found):
    accuracy = float(found.inspection.accuracy[-1])
    fixed, oracle = curve(found, "fixed"), curve(found, "oracle")
    assert fixed.blocks.tolist() == [4, 3, 2, 1]  # the exits, and full depth
    assert (fixed.disagreement[0], fixed.accuracy[0]) == (0, accuracy)
    assert (oracle.disagreement[0], oracle.accuracy[0]) == (0, accuracy)
    assert oracle.blocks[0] == pytest.approx(found.inspection.readings.oracle.mean())
    assert {one.name for one in found.curves} == {
        *("norm", "projected_norm", "margin", "confidence", "random", "fixed", "oracle")
    }


def test_no_exit_beats_the_oracle(found):
    oracle = curve(found, "oracle")
    for one in found.curves:
        for blocks, wrong in zip(one.blocks, one.disagreement, strict=True):
            allowed = oracle.disagreement >= wrong - 1e-9
            if allowed.any():
                assert oracle.blocks[allowed].max() <= blocks + 0.02, one.name


def test_leaving_at_random_is_the_expectation(found):
    readings, labels = found.inspection.readings, found.sample.labels
    random = next(one for one in baselines(readings) if one.name == "random")
    chance, chooser = CHANCES[3], np.random.default_rng(0)
    leaves = chooser.random((2_000, len(labels), DEPTH)) < chance
    leaves[:, :, -1] = True
    where = leaves.argmax(axis=2)
    rows = np.arange(len(labels))
    at = sorted(CHANCES).index(chance)  # careful first: the smallest chance runs deepest
    assert random.blocks[at] == pytest.approx((where + 1).mean(), abs=0.01)
    wrong = (~readings.agrees[rows, where]).mean()
    assert random.disagreement[at] == pytest.approx(wrong, abs=1e-3)
    assert random.accuracy[at] == pytest.approx(readings.right[rows, where].mean(), abs=1e-3)


def test_an_artifact_reads_at_each_exit_as_it_answers_who_stops_there(model):
    engine = Engine(model.artifact)
    rows = take_sample(model)[:200].rows
    read = read_engine(engine, rows, 8)
    assert read.blocks.tolist() == [1, 2, 3, 4]
    for decision in range(3):
        stopped = engine.run_batches(rows, engine.fixed(decision), 8)
        assert (stopped.depth_run == read.blocks[decision]).all()
        np.testing.assert_allclose(stopped.answers, read.answers[:, decision], atol=1e-6)


def test_one_that_skips_is_read_by_stopping_every_row_there(project, tmp_path):
    shutil.copytree(project / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "export").mkdir()
    file = tmp_path / "export" / "small.toml"
    text = (project / "export" / "small.toml").read_text().replace(', "torchscript"', "")
    file.write_text(text.replace('signal = "confidence"', 'signal = "norm"\npolicy = "skip"'))
    export(read_build_file(file))
    skips = find_model("small", tmp_path)
    assert skips.artifact.manifest.router.policy == "skip"
    sample = take_sample(skips)[:200]
    served = read_engine(Engine(skips.artifact), sample.rows, 8)
    eager = read_network(skips.checkpoint.network, sample.inputs)
    at = np.isin(eager.blocks, served.blocks)
    assert (served.answers.argmax(2) == eager.answers[:, at].argmax(2)).mean() > 0.995


def test_an_artifact_is_enough_for_all_but_what_needs_the_weights(model, tmp_path):
    alone = measure(replace(model, checkpoint=None), take_sample(model), 8, say=quiet)
    assert alone.inspection.blocks is None
    names = {"fixed", "random", "oracle", "confidence", "margin"}
    assert {one.name for one in alone.curves} == names
    figures, _ = draw_figures(alone)
    assert {one.name for one in figures} == FIGURES
    drawn = {one.name: one.svg for one in figures}
    # What blocks do to the stream is left out: no empty panel, no column of dashes.
    assert "relative update" not in drawn["blocks"]
    assert columns(alone.inspection) == ("block", "right", "agrees")
    assert {len(line) for line in rows(alone.inspection)} == {3}
    page = write_report(alone, tmp_path).read_text()
    assert "<tr><th>block</th><th>right</th><th>agrees</th></tr>" in page
    assert "exported alone" not in drawn["cost-1"]
    assert "at a certified risk of 2% the router runs" in first_line(alone)


def test_a_brought_model_has_a_report(brought, tmp_path):
    opened = find_model("moons", brought)
    found = measure(opened, take_sample(opened)[:600], 8, say=quiet)
    assert found.routed.risk in found.engine.certified()
    router = opened.artifact.manifest.router
    # Where a fixed depth can be certified, it is timed as a graph of its own.
    certified = {blocks for blocks in found.fixed.values() if blocks < DEPTH}
    assert certified <= set(router.decisions)
    assert set(found.costs[0].cut_ms) == certified
    text = write_report(found, tmp_path).read_text()
    assert router.chosen in unescape(text)
    assert all(f"<td>{one.kind}</td>" in text for one in router.stress)
    assert "onnx moons.onnx, sha256" in text


@pytest.mark.parametrize("risk", [0.01, 0.5])
def test_a_risk_that_is_not_certified_is_refused(model, risk):
    with pytest.raises(ConfigError, match=f"--risk {risk:g} is not certified, only 0.02, 0.05"):
        measure(model, take_sample(model)[:50], 8, risk, quiet)


def test_rows_without_labels_or_of_one_class_leave_figures_out_and_say_so(model, found):
    whole = take_sample(model)
    one_class = found.engine.predict(whole.inputs).labels == 0
    some = Sample(whole.rows[one_class], None, "rows of one class")
    figures, notes = draw_figures(measure(model, some, 8, say=quiet))
    names = {one.name for one in figures}
    assert names == FIGURES - {"accuracy", "risk"}
    assert any("two classes of answers" in note for note in notes)
    assert any("without labels" in note for note in notes)


def test_a_report_from_one_row_is_a_report(model):
    alone = replace(model, checkpoint=None)
    figures, notes = draw_figures(measure(alone, take_sample(model)[:1], 8, say=quiet))
    assert {one.name for one in figures} == FIGURES - {"risk"}
    assert any("two classes of answers" in note for note in notes)
