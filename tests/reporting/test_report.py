"""The report: measurements, first line, and the page in a browser."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner

from skipserve.artifacts.certificates import Refusal
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.building.buildfile import read_build_file
from skipserve.building.products import export
from skipserve.certification.certify import shortest_fixed
from skipserve.cli import app
from skipserve.errors import ConfigError
from skipserve.intervals import p_value, rate, upper_bound
from skipserve.reporting.cost import Cost
from skipserve.reporting.curves import CHANCES, baselines
from skipserve.reporting.figures import Figure
from skipserve.reporting.inputs import Depths, inputs_figure
from skipserve.reporting.model import find_model
from skipserve.reporting.page import draw_figures, write_report
from skipserve.reporting.readings import read_engine, read_network
from skipserve.reporting.report import measure
from skipserve.reporting.sample import Sample, take_sample
from skipserve.reporting.tables import parity_rows
from skipserve.reporting.words import first_line
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.style import PALETTE

pytestmark = pytest.mark.slow

DEPTH = 4
FIGURES = {
    "certified", "cost-1", "cost-8", "disagreement", "accuracy", "depth", "inputs", "risk",
    "blocks",
}  # fmt: skip


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def project(routed_project):
    """A project with one small certified model; never changed."""
    return routed_project[0]


@pytest.fixture(scope="module")
def model(project):
    return find_model("small", project)


@pytest.fixture(scope="module")
def found(model):
    return measure(model, take_sample(model), 8, say=quiet)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    return write_report(found, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def unrouted(checkpoint, artifact, tmp_path_factory):
    """Findings about a model that has an artifact and no router."""
    root = tmp_path_factory.mktemp("unrouted")
    shutil.copytree(checkpoint, root / "checkpoints" / "small")
    shutil.copytree(artifact.directory, root / "artifacts" / "small")
    opened = find_model("small", root)
    return measure(opened, take_sample(opened), 8, say=quiet)


def curve(found, name):
    return next(one for one in found.curves if one.name == name)


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


def test_an_artifact_is_enough_for_all_but_what_needs_the_weights(model):
    alone = measure(replace(model, checkpoint=None), take_sample(model), 8, say=quiet)
    assert alone.inspection.blocks is None
    names = {"fixed", "random", "oracle", "confidence", "margin"}
    assert {one.name for one in alone.curves} == names
    figures, _ = draw_figures(alone)
    assert {one.name for one in figures} == FIGURES
    drawn = {one.name: one.svg for one in figures}
    assert "needs the checkpoint" in drawn["blocks"]
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


def test_the_page_shows_exits_stress_and_parity(found, page):
    text = page.read_text()
    manifest = found.model.artifact.manifest
    for id_, lines in (
        ("exits", len(manifest.router.exits)),
        ("stress", len(manifest.router.stress)),
        ("parity", len(manifest.parity)),
    ):
        table = text.partition(f'<div class="wide" id="{id_}">')[2].partition("</table>")[0]
        assert table.count("<tr>") == lines + 1, id_
    assert "only guards" in text  # the cut before the first block
    for words in (manifest.router.chosen, manifest.router.first):
        assert words in unescape(text)


def test_int8_is_shown_with_what_it_changes(found, tmp_path):
    manifest = found.model.artifact.manifest
    like = manifest.parity[0].model_copy(update={"precision": "int8", "disagreement": 0.0123})
    artifact = replace(
        found.model.artifact, manifest=manifest.model_copy(update={"parity": (like,)})
    )
    (line,) = parity_rows(replace(found, model=replace(found.model, artifact=artifact)))
    assert line[:2] == ("onnx", "int8")
    assert line[3:5] == ("–", "1.23%")


def test_the_class_that_suffers_most_has_a_bound_of_its_own(found):
    by_class = ((0, rate(2, 300)), (1, rate(3, 30)))
    routed = replace(found.routed, by_class=by_class)
    assert routed.worst == (1, by_class[1][1], upper_bound(3, 30, 0.95))
    line = first_line(replace(found, routed=routed))
    assert "The class that suffers most is 1: 3 of 30 of its rows are answered otherwise" in line
    # Where nothing differs, the one that least is known of.
    none = replace(found.routed, by_class=((0, rate(0, 300)), (1, rate(0, 30))))
    assert none.worst[0] == 1


def costs(router, fixed, cut=None):
    """Milliseconds of a measurement that came out so, for a batch of 1 and of 8."""
    return tuple(
        Cost(size, 1.0, {1: 0.3, 2: ms, 3: 0.9}, {2: cut or ms}, {0.02: mine, 0.05: mine})
        for size, mine, ms in zip((1, 8), router, fixed, strict=True)
    )


@pytest.mark.parametrize(
    ("run_rate", "measured", "says"),
    [
        (0.3, costs((0.4, 0.4), (0.5, 0.5)), "The router beats every fixed depth: "),
        (0.3, costs((0.6, 0.6), (0.5, 0.5)), "A fixed depth beats the router in time, though"),
        (0.3, costs((0.6, 0.4), (0.5, 0.5)), "The router beats every fixed depth in blocks, but "),
        (0.3, costs((0.4, 0.4), (0.5, 0.5), cut=0.2), "A fixed depth beats the router in time, th"),
        (0.6, costs((0.4, 0.4), (0.5, 0.5)), "A fixed depth beats the router: "),
        (0.5, costs((0.4, 0.4), (0.5, 0.5)), "A fixed depth beats the router: "),
    ],
)
def test_the_first_line_says_who_won(found, run_rate, measured, says):
    points = tuple(
        replace(one, certificate=one.certificate.model_copy(update={"run_rate": run_rate}))
        for one in found.points
    )
    line = first_line(replace(found, points=points, costs=measured, fixed={0.02: 2, 0.05: 2}))
    assert line.startswith(says)
    assert f"at a certified risk of 2% the router runs {run_rate:.1%} of the blocks" in line
    assert "stopping every row after block 2 runs 50.0%" in line
    assert "ms a row against" in line


def test_where_no_fixed_depth_holds_the_rival_is_the_network_itself(found):
    whole = {0.02: DEPTH, 0.05: DEPTH}
    for ms, says in (
        (0.5, "The network without a router beats"),
        (2.0, "The router beats the net"),
    ):
        slow = tuple(replace(one, cut_ms={DEPTH: ms}, full_ms=ms) for one in costs((1, 1), (1, 1)))
        line = first_line(replace(found, costs=slow, fixed=whole))
        assert line.startswith(says)
        assert "no fixed depth below the whole network can be certified" in line


def test_a_model_without_a_router_is_told_so_and_how_to_get_one(unrouted):
    assert first_line(unrouted).startswith("small has no router: every row runs all 4 blocks.")
    assert unrouted.inspection.verdict in first_line(unrouted)
    assert any("add [router] to export/small.toml" in note for note in unrouted.notes)
    names = {one.name for one in draw_figures(unrouted)[0]}
    assert names == FIGURES - {"certified", "cost-1", "cost-8", "depth", "risk"}
    assert [cost.batch_size for cost in unrouted.costs] == [1, 8]


def test_a_checkpoint_alone_is_told_what_it_lacks(checkpoint):
    opened = find_model(str(checkpoint))
    alone = measure(opened, take_sample(opened)[:300], 8, say=quiet)
    assert first_line(alone).startswith("small is a checkpoint without an artifact")
    assert not alone.costs
    assert any("No artifact stands at" in note for note in alone.notes)


def test_an_uncertified_router_is_off_and_that_is_said(project, tmp_path):
    shutil.copytree(project / "artifacts", tmp_path / "artifacts")
    (tmp_path / "artifacts" / "small" / CERTIFICATES).unlink()
    opened = find_model("small", tmp_path)
    off = measure(opened, take_sample(opened)[:300], 8, say=quiet)
    assert first_line(off).startswith("The router of small is off")
    assert any("Nothing is certified for the fp32 files on cpu" in note for note in off.notes)


def test_a_refused_risk_is_said_on_the_page(found, tmp_path):
    why = "the most careful candidate disagrees on 90 of 100 samples"
    refused = Refusal(risk=0.001, files={"plain.fp32.onnx": "0" * 64}, provider="cpu", reason=why)
    text = write_report(replace(found, refused=(refused,)), tmp_path).read_text()
    assert f"A risk of 0.1% (disagreement) is not promised: {why}." in text


def test_the_second_risk_is_promised_too(found, tmp_path):
    made = found.engine.certified("accuracy_lost")
    text = write_report(found, tmp_path).read_text()
    assert set(made) <= {0.02, 0.05}
    assert made  # a build certifies both
    for risk in made:
        assert f"Accuracy lost, {100 * risk:g}%: on inputs like those" in text


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


def sample_of(inputs, labels):
    return Sample(Rows({"inputs": inputs}), labels, "rows")


def depths(count):
    return Depths(
        of=lambda rows: np.ones(len(rows), dtype=np.int64),
        sample=np.arange(count) % 4 + 1,
        settled=np.linspace(0, 1, count, dtype=np.float32),
        held_back=np.arange(count) == 3,  # the deepest and least sure of all
        decided_by="chance",
        depth=4,
    )


def test_the_easiest_and_the_hardest_signals_are_drawn():
    inputs = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    drawn = inputs_figure(sample_of(inputs, np.arange(40)), depths(40))
    assert isinstance(drawn, Figure)
    # Easiest: the shallow and sure ones; hardest: the deep and unsure ones.
    for row, blocks in ((36, "1 block"), (16, "1 block"), (7, "4 blocks"), (27, "4 blocks")):
        assert f"class {row}, {blocks}<" in drawn.svg
    assert "class 3," not in drawn.svg
    assert "2 blocks" not in drawn.svg
    # Of four classes each is drawn once before any is drawn again.
    few = inputs_figure(sample_of(inputs, np.arange(40) // 10), depths(40))
    assert isinstance(few, Figure)
    assert [few.svg.count(f"class {one}, 4 blocks<") for one in range(4)] == [1, 3, 1, 1]


@pytest.mark.parametrize(
    ("shape", "says"), [((5, 12), "5 rows are too few"), ((40, 3), "neither"), ((40, 4, 4), "nei")]
)
def test_inputs_that_cannot_be_drawn_say_why(shape, says):
    said = inputs_figure(sample_of(np.zeros(shape, dtype=np.float32), None), depths(shape[0]))
    assert isinstance(said, str)
    assert says in said


def test_a_report_is_the_same_but_for_the_clock(model, found, page, tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)
    again = measure(model, take_sample(model), 8, say=quiet)
    timed = replace(
        again,
        costs=found.costs,
        inspection=replace(
            again.inspection,
            prospect=found.inspection.prospect,
            verdict=found.inspection.verdict,
        ),
    )
    other = write_report(timed, tmp_path)
    assert other.read_bytes() == page.read_bytes()
    for picture in page.parent.glob("*.png"):
        assert (tmp_path / picture.name).read_bytes() == picture.read_bytes()


def test_every_figure_is_a_png_too(page):
    assert {file.stem for file in page.parent.glob("*.png")} == FIGURES
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in page.parent.glob("*.png"))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield opened
        opened.close()


def shown(browser, page, width=1200, scheme="light"):
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked, complaints = [], []
    view.on("request", lambda request: asked.append(request.url))
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.goto(page.as_uri())
    view.wait_for_load_state("networkidle")
    assert asked == [page.as_uri()]
    assert not complaints
    return view


BOXES = """() => [...document.querySelectorAll("figure")].map(figure => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    const marks = [...figure.querySelectorAll("svg path, svg image, svg use")]
        .filter(mark => mark.getBoundingClientRect().width > 0);
    return [figure.id, box.width, box.height, marks.length];
})"""
PAINT = """() => [getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector("figure svg text")).fill]"""


def rgb(name, dark):
    hexes = PALETTE[name][dark].lstrip("#")
    return "rgb({}, {}, {})".format(*(int(hexes[at : at + 2], 16) for at in (0, 2, 4)))


@pytest.mark.parametrize("width", [1200, 375])
def test_every_figure_is_shown_and_nothing_else_is_asked_for(browser, page, width):
    view = shown(browser, page, width)
    figures = view.evaluate(BOXES)
    assert {name for name, *_ in figures} == FIGURES
    for name, wide, high, marks in figures:
        assert min(wide, high) > 100, name
        assert wide <= width
        assert marks > 3, name
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    view.close()


def test_the_page_of_a_model_without_a_router_is_shown(browser, unrouted, tmp_path):
    view = shown(browser, write_report(unrouted, tmp_path), 375)
    assert len(view.evaluate(BOXES)) == len(FIGURES) - 5
    assert view.evaluate("document.documentElement.scrollWidth") <= 375
    assert "small has no router" in view.inner_text(".lede")
    view.close()


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_and_its_figures_follow_the_scheme(browser, page, scheme, dark):
    view = shown(browser, page, scheme=scheme)
    assert view.evaluate(PAINT) == [rgb("paper", dark), rgb("ink", dark)]
    view.close()


def test_the_page_prints_on_white_whatever_the_scheme(browser, page):
    view = shown(browser, page, scheme="dark")
    view.emulate_media(media="print", color_scheme="dark")
    assert view.evaluate(PAINT) == ["rgb(255, 255, 255)", rgb("ink", False)]
    view.set_viewport_size({"width": 700, "height": 1000})  # A4 less its margins, nearly
    assert all(wide > 200 for _, wide, *_ in view.evaluate(BOXES))
    assert view.evaluate("document.documentElement.scrollWidth") <= 700
    assert view.pdf(format="A4").startswith(b"%PDF")
    view.close()


def test_the_first_line_and_the_promise_are_on_the_page(browser, found, page):
    view = shown(browser, page)
    assert view.inner_text("main").split("\n")[2] == first_line(found)
    text = view.inner_text("main")
    assert "Of 500 inputs like those it was tested on, at most 10 get another answer" in text
    assert "The class that suffers most is" in text
    assert "We are 95% sure of that." in text
    view.close()


def test_the_command_writes_the_page_and_says_the_first_line(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    sample = take_sample(find_model("small"))[:200]
    rows, labels = tmp_path / "rows.npy", tmp_path / "labels.npy"
    np.save(rows, sample.inputs)
    np.save(labels, sample.labels)
    done = CliRunner().invoke(
        app,
        ["report", "small", "--data", str(rows), "--labels", str(labels), "--risk", "0.05",
         "--batch-size", "8", "--out", str(tmp_path / "out"), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "report.html").read_text()
    told = json.loads(done.stdout)
    assert told["page"] == str(tmp_path / "out" / "report.html")
    assert (told["rows"], told["risk"]) == (200, 0.05)
    assert "at a certified risk of 5%" in told["summary"]
    assert told["certified"] and all(one["seen"]["total"] == 200 for one in told["certified"])
    assert "200 from rows.npy" in text
    assert "of 8</th>" in text
