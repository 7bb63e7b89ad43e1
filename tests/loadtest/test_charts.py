"""The latency charts of a load test's page."""

from __future__ import annotations

import math
import re

from skipserve.loadtest.charts import Line, latency_chart


def texts(svg: str) -> list[str]:
    return [found.strip() for found in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_a_line_passes_through_its_points_and_leaves_out_what_never_came():
    points = [(1.0, 2.0), (2.0, math.inf), (3.0, 8.0), (4.0, math.nan)]
    svg = latency_chart("Here", [Line("asked", points)], "seconds")
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--asked\)', svg)
    assert len(re.findall(r"[ML] ", path)) == 2


def test_colours_are_the_style_sheets_own():
    lines = [Line("asked", [(0.0, 1.0), (1.0, 9.0)]), Line("baseline", [(0.0, 2.0), (1.0, 5.0)])]
    svg = latency_chart("Here", lines, "seconds", marks=[(4.0, "asked: p50 ≤ 4 ms")])
    assert {"--asked", "--baseline", "--ink"} <= set(re.findall(r"var\((--[a-z]+)\)", svg))
    assert not re.search(r"(stroke|fill): #(?!0{6}|f{6})", svg)
    assert "asked: p50 ≤ 4 ms" in texts(svg)


def test_latencies_that_hardly_differ_still_stand_between_two_ticks():
    svg = latency_chart("Here", [Line("asked", [(100.0, 3.1), (110.0, 3.2)])], "/s", log_x=True)
    assert {"2", "5", "100", "200"} <= set(texts(svg))


def test_ticks_of_ones_own_and_a_title_with_a_bracket():
    svg = latency_chart("p < 1", [], "percentile", x_ticks=[(0.0, "min"), (1.0, "p90")])
    assert {"min", "p90", "percentile", "ms"} <= set(texts(svg))
    assert 'aria-label="p &lt; 1"' in svg
