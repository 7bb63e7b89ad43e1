"""The report of a load test: a JSON file, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from jinja2 import Environment

from skipserve.intervals import rate
from skipserve.loadtest.capacity import Capacity
from skipserve.loadtest.charts import Line, latency_chart
from skipserve.loadtest.compare import Change, ratio_intervals
from skipserve.loadtest.percentiles import CONFIDENCE, percentile_interval
from skipserve.loadtest.results import Arm, Report
from skipserve.loadtest.slo import parse_slo
from skipserve.loadtest.tally import Tally
from skipserve.style import css_variables

PERCENTS = (50.0, 90.0, 99.0, 99.9)
PHASES = ("queue", "decode", "inference")
# Even steps on the scale -log10(1 - p), which gives every further nine the same room.
CURVE = tuple(100 * (1 - 10 ** (-step / 20)) for step in range(0, 61))
TITLES = {"asked": "as asked", "baseline": "router off"}


def summarise(report: Report) -> dict[str, Any]:
    """The figures of every arm; times in seconds."""
    summary: dict[str, Any] = {arm.name: _figures(arm) for arm in report.arms}
    if report.baseline and report.baseline.slices and report.asked.slices:
        asked = [tally for _, _, tally in report.asked.slices]
        baseline = [tally for _, _, tally in report.baseline.slices]
        intervals = ratio_intervals(baseline, asked, PERCENTS)
        summary["asked / baseline"] = {
            f"p{percent:g}": {
                "ratio": _ratio(report.asked.total, report.baseline.total, percent),
                "low": low,
                "high": high,
            }
            for percent, (low, high) in zip(PERCENTS, intervals, strict=True)
        }
    return summary


def write_html(file: Path, report: Report, changes: Sequence[Change]) -> None:
    """Write the page of a run."""
    page = _template("report.html").render(
        report=report,
        title=", ".join(report.models),
        titles=TITLES,
        summary=summarise(report),
        choices=_choices(report.asked) if len(report.asked.choices) > 1 else [],
        failures=[(arm.name, *one) for arm in report.arms for one in arm.total.failures.items()],
        changes=changes,
        phases=PHASES,
        latency=_latency_chart(report),
        timeline=_timeline_chart(report),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page)


def write_capacity(
    base: Path, found: Sequence[Capacity], about: dict[str, Any], partial: bool
) -> None:
    """Write ``base.html`` and ``base.json`` of a capacity search."""
    values = {"partial": partial, **about, "capacity": msgspec.to_builtins(found)}
    base.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(values), indent=1)
    base.with_name(f"{base.name}.json").write_bytes(text + b"\n")
    page = _template("capacity.html").render(
        found=found,
        titles=TITLES,
        partial=partial,
        chart=_capacity_chart(found, about["plan"]),
        **about,
    )
    base.with_name(f"{base.name}.html").write_text(page)


def _template(name: str) -> Any:
    folder = files("skipserve.loadtest")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["ms"] = lambda seconds: f"{seconds * 1e3:.3g}"
    light, dark = css_variables(dark=False), css_variables(dark=True)
    palette = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    environment.globals["style"] = palette + folder.joinpath("report.css").read_text()
    return environment.from_string(folder.joinpath(name).read_text())


def _figures(arm: Arm) -> dict[str, Any]:
    tally = arm.total
    return {
        "requests": tally.requests,
        "requests_per_s": tally.requests / arm.ran_s if arm.ran_s else 0.0,
        "right_answers_per_s": arm.throughput,
        "failed": tally.failed,
        "latency_s": {f"p{percent:g}": _latency(tally, percent) for percent in PERCENTS},
        "phases_s": {name: _phase(tally, name) for name in PHASES},
        "client": {
            "busiest_core_share": arm.busiest,
            "lag_p50_s": tally.lag.percentile(50),
            "lag_p99_s": tally.lag.percentile(99),
            "found_no_connection": arm.exhausted,
        },
        "router": _router(tally),
    }


def _latency(tally: Tally, percent: float) -> dict[str, float | None]:
    found = percentile_interval(tally.corrected, percent)
    return {
        "corrected": _finite(found.value),
        "low": found.low,
        "high": _finite(found.high),
        "uncorrected": _finite(tally.uncorrected.percentile(percent)),
    }


def _phase(tally: Tally, name: str) -> dict[str, float | None]:
    sample = getattr(tally, name)
    return {
        "mean": _finite(sample.mean()),
        "p50": _finite(sample.percentile(50)),
        "p99": _finite(sample.percentile(99)),
    }


def _router(tally: Tally) -> dict[str, Any] | None:
    if not tally.routed_rows:
        return None
    found = rate(tally.disagreements, tally.routed_rows, 2 * CONFIDENCE - 1)
    return {
        "rows": tally.routed_rows,
        "skip_rate": tally.skip_rate,
        "disagreement": found.value,
        "disagreement_low": found.low,
        "disagreement_high": found.high,
        "unforeseen_rows": tally.unforeseen,
        "held_back": tally.held_back / tally.routed_rows,
    }


def _ratio(asked: Tally, baseline: Tally, percent: float) -> float | None:
    below = baseline.corrected.percentile(percent)
    return _finite(asked.corrected.percentile(percent) / below) if below else None


def _finite(value: float) -> float | None:
    # JSON has neither NaN nor infinities.
    return value if value - value == 0 else None


def _choices(arm: Arm) -> list[dict[str, Any]]:
    return [
        {
            "name": str(choice),
            "requests": tally.requests,
            "failed": tally.failed,
            "p50": tally.corrected.percentile(50),
            "p99": tally.corrected.percentile(99),
        }
        for choice, tally in zip(arm.choices, arm.by_choice, strict=True)
    ]


def _latency_chart(report: Report) -> str:
    lines = []
    for arm in report.arms:
        for name in ("uncorrected", "corrected"):
            sample = getattr(arm.total, name)
            if len(sample) > 0:
                points = [(step / 20, sample.percentile(p) * 1e3) for step, p in enumerate(CURVE)]
                lines.append(Line(arm.name, points, dashed=name == "uncorrected"))
    return latency_chart(
        "Latency by percentile",
        lines,
        "percentile of the requests",
        _marks(report.plan),
        x_ticks=[(0.0, "min"), (0.301, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9")],
    )


def _timeline_chart(report: Report) -> str:
    lines = []
    for arm in report.arms:
        period_s = arm.periods[0].ran_s if arm.periods else 0.0
        for percent in (99.0, 50.0):
            points = [
                (period * period_s + part * arm.slice_s, tally.corrected.percentile(percent) * 1e3)
                for period, part, tally in arm.slices
            ]
            lines.append(Line(arm.name, points, dashed=percent == 99.0))
    return latency_chart("Latency over time", lines, "seconds of load")


def _capacity_chart(found: Sequence[Capacity], plan: dict[str, Any]) -> str:
    lines = []
    for one in found:
        for name in ("p99_s", "p50_s"):
            at: dict[float, list[float]] = {}
            for trial in sorted(one.trials, key=lambda trial: trial.rate):
                at.setdefault(trial.rate, []).append(getattr(trial, name) * 1e3)
            every = [(rate, value) for rate, values in at.items() for value in values]
            middle = [(rate, median(values)) for rate, values in at.items()]
            lines.append(Line(one.name, every, dots=True))
            lines.append(Line(one.name, middle, dashed=name == "p99_s"))
    return latency_chart("Latency by rate", lines, "requests/s", _marks(plan), log_x=True)


def _marks(plan: dict[str, Any]) -> list[tuple[float, str]]:
    asked: dict[float, list[str]] = {}
    for percent, limit_s in parse_slo(plan["objective"]).percentiles:
        asked.setdefault(limit_s * 1e3, []).append(f"p{percent:g}")
    return [(limit, f"asked: {', '.join(who)} ≤ {limit:g} ms") for limit, who in asked.items()]
