"""Rows of the dashboard that any model has: how fast it is and what it runs on."""

from __future__ import annotations

from collections.abc import Sequence

from panels import ANY, Panel, Steps, facts, heat, lines, now, number, query, word
from queries import (
    BLOCKS,
    DISAGREEMENT,
    DURATION,
    SKIPPED,
    gauge,
    increase,
    mean,
    quantile,
    rate,
    share,
    total,
)

MS_15: Steps = [(None, "green"), (0.015, "red")]
WITHIN: Steps = [(None, "red"), (0.5, "orange"), (0.95, "green")]
ERRORS: Steps = [(None, "green"), (0.001, "orange"), (0.01, "red")]
BURN: Steps = [(None, "green"), (6, "orange"), (14.4, "red")]
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
            "Share of the shadow rows of an hour whose answer differs from full depth, by the "
            "certified risk they were served at; all instances.",
            "percentunit",
            [now(f'{DISAGREEMENT}:ratio_1h{{model="$model"}}', "{{risk}}")],
        ),
        number(
            "Evidence of the alarm level",
            "Wealth of the bet against the certificate, as a share of the level at which skipping "
            "is switched off.",
            "percentunit",
            [
                now(
                    f"max({gauge('skipserve_shadow_evidence')}) "
                    f"/ max({gauge('skipserve_shadow_alarm_level')})"
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


def latency() -> Sequence[Panel]:
    """Quantiles, the heat maps of rows that skipped and of rows that did not, and the budgets."""
    return [
        lines(
            "Latency",
            "Time in the worker, its batch included; answers with status 200. The line is 15 ms.",
            "s",
            [query(quantile(q, DURATION), f"p{q * 100:.0f}") for q in (0.5, 0.9, 0.99)],
            MS_15,
        ).span(12),
        lines(
            "Latency by depth",
            "p50 and p99 of requests of which a row left out a block, and of those at full depth.",
            "s",
            [
                query(quantile(q, DURATION, "depth"), f"p{q * 100:.0f} {{{{depth}}}}")
                for q in (0.5, 0.99)
            ],
            MS_15,
        ).span(12),
        *(
            heat(
                f"Latency, {what}",
                f"Requests by time in the worker: {what}. An edge lies at exactly 15 ms.",
                "s",
                total(increase(f"{DURATION}_bucket", f',depth="{depth}"'), "le"),
                MS_15,
            ).span(12)
            for depth, what in (("skipped", "a block left out"), ("full", "full depth"))
        ),
        lines(
            "Phases",
            "p50 of the time that one batch spends in each phase of the worker.",
            "s",
            [query(quantile(0.5, "skipserve_phase_duration_seconds", "phase"), "{{phase}}")],
        ).span(8),
        lines(
            "Queue wait",
            "Mean time a request waited in TorchServe's queue; all instances. This metric is "
            "TorchServe's, and only a mean can be had from it.",
            "s",
            [
                query(
                    'sum(rate(ts_queue_latency_microseconds{model_name="$model"}'
                    "[$__rate_interval])) / (sum(rate(ts_inference_requests_total"
                    '{model_name="$model"}[$__rate_interval])) > 0) / 1e6',
                    "mean",
                )
            ],
            MS_15,
        ).span(8),
        lines(
            "Budgets",
            "How many times faster than allowed each budget is spent (95 % within 15 ms, 99.9 % "
            "without 5xx), over an hour and six; all instances. Alerts: 14.4 and 6.",
            "none",
            [
                query(f'model:skipserve_slo_burn:rate{w}{{model="$model"}}', f"{{{{slo}}}} {w}")
                for w in ("1h", "6h")
            ],
            BURN,
        ).span(8),
    ]


def traffic() -> Sequence[Panel]:
    """How much is asked, and how it is answered."""
    return [
        lines(
            "Rows",
            "Rows per second, by whether the router was on for them.",
            "suffix: rows/s",
            [query(total(rate("skipserve_rows_total"), "router"), "router {{router}}")],
        ).span(8),
        lines(
            "Answers by status",
            "4xx are the clients' mistakes, 5xx ours.",
            "reqps",
            [query(total(rate("skipserve_requests_total"), "code"), "{{code}}")],
        ).span(8),
        lines(
            "Rows that ran together",
            "Rows in a batch: the mean, and what nine of ten batches do not exceed.",
            "suffix: rows",
            [
                query(mean("skipserve_batch_rows"), "mean"),
                query(quantile(0.9, "skipserve_batch_rows"), "p90"),
            ],
        ).span(8),
    ]


def runtime() -> Sequence[Panel]:
    """What it runs on."""
    scrape = ("job", "instance")
    return [
        facts(
            "Build",
            "Versions that serve.",
            'skipserve_build_info{instance=~"$instance"}',
            ("job",),
        ).span(12),
        facts(
            "Model",
            "What the model really runs on; checkpoint is the start of its hash.",
            gauge("skipserve_model_info"),
            scrape,
        ).span(12),
        number(
            "On the CPU beside a GPU",
            "1 if the model runs on the CPU although the machine has a GPU.",
            "none",
            [now(f"max({gauge('skipserve_provider_fallback')})")],
            ANY,
        ).span(6),
        number(
            "Worker restarts",
            "Workers that died and were started again in the time shown.",
            "none",
            [
                now(
                    'sum(increase(skipserve_worker_restarts_total{instance=~"$instance"}[$__range]))'
                )
            ],
            ANY,
        ).span(6),
        number(
            "p50 of every model",
            "Half of the requests of five minutes took no longer; all instances.",
            "s",
            [now("model:skipserve_request_duration_seconds:p50_5m", "{{model}}")],
            MS_15,
        ).span(6),
        number(
            "Skip rate of every model",
            "Share of the blocks left out in five minutes, rows with the router on; all instances.",
            "percentunit",
            [now("model:skipserve_skip:ratio_rate5m", "{{model}}")],
        ).span(6),
    ]
