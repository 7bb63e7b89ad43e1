"""Rows of the dashboard that any model has: how fast it is and what it runs on."""

from __future__ import annotations

from collections.abc import Sequence

from panels import ANY, MS_15, Panel, Steps, facts, heat, lines, now, number, query
from queries import (
    DURATION,
    gauge,
    increase,
    mean,
    quantile,
    rate,
    total,
)

BURN: Steps = [(None, "green"), (6, "orange"), (14.4, "red")]


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
            "Time that requests wait in the service for their batch; all instances. Empty behind "
            "TorchServe, whose queue is in its frontend.",
            "s",
            [
                query(quantile(q, "skipserve_queue_wait_seconds"), f"p{q * 100:g}")
                for q in (0.5, 0.95)
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
            "Requests that were not run",
            "By why: their time was up, their client left, or the queue was full.",
            "reqps",
            [query(total(rate("skipserve_requests_not_run_total"), "reason"), "{{reason}}")],
        ).span(8),
        lines(
            "Risk in force",
            "ε of a request that names none, the largest of the workers; 0 is full depth. Under "
            "overload it moves along the certified risks.",
            "percentunit",
            [
                query(f"max({gauge('skipserve_risk_in_force_ratio')})", "risk"),
                query(total(rate("skipserve_overload_moves_total"), "to"), "moves {{to}}/s"),
            ],
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
            "Version",
            "Version of the model that answers for its name, the lowest of all instances.",
            "none",
            [now(f"min({gauge('skipserve_model_version')})")],
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
    ]
