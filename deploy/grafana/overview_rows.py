"""The rows of the dashboard that are read first: this model now, and all models beside it."""

from __future__ import annotations

from collections.abc import Sequence

from panels import HELD_BACK, MS_15, Panel, Steps, now, number, word
from queries import (
    BLOCKS,
    DISAGREEMENT,
    DURATION,
    SKIPPED,
    gauge,
    quantile,
    rate,
    share,
    total,
)

WITHIN: Steps = [(None, "red"), (0.5, "orange"), (0.95, "green")]
ERRORS: Steps = [(None, "green"), (0.001, "orange"), (0.01, "red")]
OF_ALARM: Steps = [(None, "green"), (0.2, "orange"), (1, "red")]

SERVER_ERRORS = ',code=~"5.."'
WITHIN_15 = ',le="0.015"'


def glance() -> Sequence[Panel]:
    """One figure each: how fast, how deep, how true."""
    figures = [
        number(
            "Requests",
            "Requests the workers answered, whatever the status.",
            "reqps",
            [now(total(rate("skipserve_requests_total")))],
        ),
        number(
            "p50",
            "Half of the requests took no longer in the worker. The target is 15 ms.",
            "s",
            [now(quantile(0.5, DURATION))],
            MS_15,
        ),
        number(
            "Within 15 ms",
            "Share of the requests that took no more than 15 ms. The objective is 95 %.",
            "percentunit",
            [now(share(rate(f"{DURATION}_bucket", WITHIN_15), rate(f"{DURATION}_count")))],
            WITHIN,
        ),
        number(
            "5xx",
            "Share of the requests answered 5xx by the workers.",
            "percentunit",
            [
                now(
                    share(
                        rate("skipserve_requests_total", SERVER_ERRORS),
                        rate("skipserve_requests_total"),
                    )
                )
            ],
            ERRORS,
        ),
        number(
            "Skip rate",
            "Share of the blocks left out, of rows with the router on.",
            "percentunit",
            [now(share(rate(BLOCKS, SKIPPED), rate(BLOCKS)))],
        ),
        number(
            "Disagreement, 1 h",
            "Share of the evidence rows of an hour whose answer differs from full depth, by the "
            "certified risk they were served at; all instances.",
            "percentunit",
            [now(f'{DISAGREEMENT}:ratio_1h{{model="$model"}}', "{{risk}}")],
        ),
        number(
            "Alarm",
            "Wealth of the bet against the certificate, as a share of the level at which what is "
            "in force is withdrawn.",
            "percentunit",
            [
                now(
                    f"max({gauge('skipserve_alarm_evidence')}) "
                    f"/ max({gauge('skipserve_alarm_level')})"
                )
            ],
            OF_ALARM,
        ),
        word(
            "Router",
            "State of the router: on, off, uncertified (nothing to skip by), fell_back (the alarm "
            "switched it off) or disabled (by command).",
            [now(f"max by (state) ({gauge('skipserve_router_state')}) == 1", "{{state}}")],
        ),
    ]
    return [figure.span(3) for figure in figures]


def every_model() -> Sequence[Panel]:
    """The models side by side, from the recording rules: five minutes, all instances."""
    latency = "model:skipserve_request_duration_seconds"
    figures = [
        number(
            "Latency of every model",
            "p50, p90 and p99 of the time in the worker.",
            "s",
            [now(f"{latency}:{p}_5m", f"{{{{model}}}} {p}") for p in ("p50", "p90", "p99")],
            MS_15,
        ),
        number(
            "Within 15 ms, every model",
            "Share of the requests that took no more than 15 ms.",
            "percentunit",
            [now("model:skipserve_requests_within_15ms:ratio_rate5m", "{{model}}")],
            WITHIN,
        ),
        number(
            "Skip rate of every model",
            "Share of the blocks left out, of rows with the router on.",
            "percentunit",
            [now("model:skipserve_skip:ratio_rate5m", "{{model}}")],
        ),
        number(
            "Held back, every model",
            "Share of the rows that the guard sent to full depth.",
            "percentunit",
            [now("model:skipserve_guard_held_back:ratio_rate5m", "{{model}}")],
            HELD_BACK,
        ),
    ]
    return [figure.span(width) for figure, width in zip(figures, (9, 5, 5, 5), strict=True)]
