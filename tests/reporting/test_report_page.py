"""The page of a report, and in a browser."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright
from reports import FIGURES, curve, quiet
from typer.testing import CliRunner

from skipserve.artifacts.certificates import Refusal
from skipserve.cli import app
from skipserve.reporting.figures import accuracy_limits
from skipserve.reporting.model import find_model
from skipserve.reporting.page import write_report
from skipserve.reporting.report import measure
from skipserve.reporting.sample import take_sample
from skipserve.reporting.served_figures import cost_figure
from skipserve.reporting.tables import parity_rows
from skipserve.reporting.words import accuracy_promise, first_line
from skipserve.style import PALETTE

pytestmark = pytest.mark.slow


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


def test_accuracy_that_rose_is_not_said_to_fall(found):
    (made, *_) = found.engine.certified("accuracy_lost").values()
    for lost, said in ((-0.0176, "it rose by 1.76%"), (0.002, "it fell by 0.20%")):
        assert said in accuracy_promise(0.01, made.model_copy(update={"accuracy_lost": lost}))


def test_certificates_of_one_candidate_share_a_label(found):
    one = found.points[0]
    twin = replace(one, certificate=one.certificate.model_copy(update={"risk": 0.005}))
    cost = replace(found.costs[0], router_ms={**found.costs[0].router_ms, 0.005: 1.0})
    fixed = curve(found, "fixed")
    shown = unescape(cost_figure(cost, fixed, [twin, *found.points]).svg)
    assert f"ε = 0.5%, {100 * one.certificate.risk:g}%" in shown
    assert "Diamonds" not in cost_figure(replace(cost, cut_ms={}), fixed, found.points).caption


def test_early_answers_that_are_better_are_inside_the_figure(found):
    fixed, signal = curve(found, "fixed"), curve(found, "confidence")
    above = replace(signal, accuracy=np.linspace(0.5, 0.999, len(signal.blocks)))
    assert fixed.accuracy.max() < 0.99
    low, high = accuracy_limits([fixed, above])
    assert high > 0.999 and low == pytest.approx(0.749)
    assert accuracy_limits([fixed])[1] < high


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
