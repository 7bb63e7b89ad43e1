"""The page at `/` of the metrics port, in a real browser and under real traffic."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from observed import MODEL
from playwright.sync_api import Browser, Page, sync_playwright
from scipy.stats import binomtest

from skipserve.watching.numbers import numbers
from skipserve.watching.scrape import parse

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, observed) -> Iterator[Page]:
    """The page, opened; whatever it complained of or asked other hosts for fails the test."""
    opened = browser.new_page()
    complaints: list[str] = []
    hosts: set[str | None] = set()
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    opened.goto(observed.metrics_url)
    yield opened
    opened.close()
    assert complaints == []
    assert hosts == {urlsplit(observed.metrics_url).netloc}


def text(page: Page, field: str) -> str:
    return page.locator(f'section[data-model="{MODEL}"] [data-of="{field}"]').inner_text()


def heights(page: Page) -> list[float]:
    """Of the bars, at once: the page draws them anew every few seconds."""
    bars: list[float] = page.locator(".bars i").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().height)"
    )
    return bars


def drive(page: Page, observed, until) -> None:
    """Traffic until the page shows what is asked for."""
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, page.inner_text("body")
        observed.traffic(20)
        page.wait_for_timeout(100)


def test_without_traffic_it_says_so(page):
    page.wait_for_selector("section")
    assert text(page, "traffic").startswith("no traffic")
    assert text(page, "p50") == "no traffic"
    assert text(page, "skip") == "no traffic"


def test_it_shows_latency_skip_rates_agreement_and_the_router(page, observed):
    page.wait_for_selector("section")
    drive(page, observed, lambda: "ms" in text(page, "p50") and "%" in text(page, "agree"))
    drive(page, observed, lambda: len(set(heights(page))) > 1)
    assert re.fullmatch(r"p50 [\d.]+ ms", text(page, "p50"))
    assert re.search(r"p99 [\d.]+ ms, [\d.]+ % within 15 ms", text(page, "others"))
    assert re.search(r"[\d.]+ requests/s, 0 % answered 5xx", text(page, "traffic"))
    assert text(page, "state") == "on"
    assert text(page, "risk").startswith("certified ε 5 %")
    assert re.search(r"\d+ of \d+ evidence rows", text(page, "seen"))
    shown = heights(page)
    assert len(shown) == 4
    assert shown == sorted(shown)
    assert page.locator("svg .p50").get_attribute("d").startswith("M")


def test_evidence_is_found_at_a_risk_however_its_label_spells_it(page):
    page.wait_for_selector("section")
    summed = page.evaluate(
        """() => {
          const samples = new Map([["rows", [
            { labels: { model: "m", risk: "5e-05" }, value: 1 },
            { labels: { model: "m", risk: "0.00005" }, value: 2 },
            { labels: { model: "m", risk: "0.0123456789" }, value: 4 },
            { labels: { model: "n", risk: "0.00005" }, value: 8 },
          ]]]);
          const at = risk => sumAt(risk, samples, "rows", { model: "m" });
          return [at(0.00005), at(0.0123456789), at(0.01), at(undefined)];
        }"""
    )
    assert summed == [3, 4, 0, 7]


def test_it_says_how_many_requests_came_before_it_was_opened(page, observed):
    observed.traffic(1)
    before = re.compile(r"no traffic since this page opened; [1-9]\d* requests before")
    deadline = time.monotonic() + 30
    while not before.fullmatch(text(page, "traffic")):  # the request may be counted late
        assert time.monotonic() < deadline, text(page, "traffic")
        page.reload()
        page.wait_for_selector("section")


def test_its_numbers_change(page, observed):
    page.wait_for_selector("section")
    drive(page, observed, lambda: "requests/s" in text(page, "traffic"))
    before = (
        text(page, "traffic"),
        text(page, "seen"),
        page.locator("svg .p50").get_attribute("d"),
    )
    drive(
        page,
        observed,
        lambda: (
            text(page, "traffic") != before[0]
            and text(page, "seen") != before[1]
            and page.locator("svg .p50").get_attribute("d") != before[2]
        ),
    )


def test_its_numbers_are_those_of_top(page, observed):
    """Both compute from the same two answers, with the same exact interval."""
    texts = [observed.running.get("/metrics")]
    observed.traffic(40)
    texts.append(observed.running.get("/metrics"))
    shown = page.evaluate(
        """([before, after, model]) => {
            const added = since(parse(before), parse(after));
            const buckets = by("le", added, "skipserve_request_duration_seconds_bucket", {model});
            return {p50: quantile(0.5, buckets), p99: quantile(0.99, buckets),
                    interval: interval(3, 200),
                    none: interval(0, 12),
                    requests: sum(added, "skipserve_requests_total", {model})};
        }""",
        [*texts, MODEL],
    )
    (one,) = numbers(*(parse(content, float(i)) for i, content in enumerate(texts))).models
    assert shown["p50"] == pytest.approx(one.p50_s)
    assert shown["p99"] == pytest.approx(one.p99_s)
    assert shown["none"] == pytest.approx((0, 1 - 0.005 ** (1 / 12)), abs=1e-9)
    exact = binomtest(3, 200).proportion_ci(0.99, method="exact")
    assert shown["interval"] == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert shown["requests"] == one.requests_per_s == 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser, observed, scheme):
    opened = browser.new_page(color_scheme=scheme)
    opened.goto(observed.metrics_url)
    colours = opened.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    opened.close()
    paper, ink = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in colours)
    assert (paper > ink) == (scheme == "light")
    assert abs(paper - ink) > 400


def test_a_service_that_goes_away_is_said_and_asked_again(browser, observed):
    opened = browser.new_page()
    opened.goto(observed.metrics_url)
    opened.wait_for_selector("section")
    opened.route("**/metrics", lambda route: route.fulfill(status=503, body="changing"))
    opened.wait_for_selector("#problem:not([hidden])")
    assert "it answers 503" in opened.inner_text("#problem")
    assert opened.locator("section").count() == 1  # what was known stays
    opened.unroute("**/metrics")
    opened.wait_for_selector("#problem", state="hidden")
    opened.close()
