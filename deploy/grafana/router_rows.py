"""Rows of the dashboard about skipping: how deep inputs go, and whether that still agrees."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from panels import ANY, HELD_BACK, Panel, Steps, band, bars, heat, lines, now, number, query, states
from queries import (
    BLOCKS,
    DISAGREEMENT,
    ON,
    SKIPPED,
    SLICES,
    gauge,
    increase,
    mean,
    rate,
    share,
    total,
    wilson,
)

PSI: Steps = [(None, "green"), (0.1, "orange"), (0.25, "red")]

BLOCK = ',block=~"$block"'


def depth() -> Sequence[Panel]:
    """How deep inputs go; rows with the router on only."""
    return [
        bars(
            "Skip rate per block",
            "Share of the rows that left out a block in the last five minutes; all instances.",
            "percentunit",
            [
                now(
                    'sort(model_block:skipserve_skip:ratio_rate5m{model="$model"})',
                    "block {{block}}",
                )
            ],
        )
        .max(1)
        .span(8),
        lines(
            "Skip rate over time",
            "Share of the rows that left out a block, block by block.",
            "percentunit",
            [query(share(rate(BLOCKS, SKIPPED), rate(BLOCKS), "block"), "block {{block}}")],
        )
        .max(1)
        .span(16),
        heat(
            "Depth run",
            "Rows by the number of blocks that ran for them.",
            "none",
            total(increase("skipserve_depth_run_blocks_bucket"), "le"),
            [(None, "blue")],
        ).span(8),
        lines(
            "Mean depth run",
            "Blocks run for a row, on average.",
            "suffix: blocks",
            [query(mean("skipserve_depth_run_blocks"), "mean")],
        ).span(8),
        lines(
            "Held back by the guard",
            "Share of the rows that the guard sent to full depth because their stream is unlike "
            "any at calibration. By its quantile, 0.5 % of familiar rows are. Overflow: share of "
            "the rows that overflowed inside the network.",
            "percentunit",
            [
                query(
                    share(
                        rate("skipserve_guard_held_back_rows_total"),
                        rate("skipserve_rows_total", ON),
                    ),
                    "held back",
                ),
                query(
                    share(rate("skipserve_overflow_rows_total"), rate("skipserve_rows_total")),
                    "overflow",
                ),
            ],
            HELD_BACK,
        ).span(8),
    ]


def intervals() -> Sequence[Panel]:
    """One small panel a block: its skip rate in its interval."""
    part, whole = increase(BLOCKS, SKIPPED + BLOCK), increase(BLOCKS, BLOCK)
    panel = lines(
        "Block $block",
        "Share of the rows that left out this block, within Wilson's 95 % interval.",
        "percentunit",
        [
            query(share(part, whole), "skip rate"),
            query(wilson(part, whole, "-"), "low"),
            query(wilson(part, whole, "+"), "high"),
        ],
    )
    panel = band(panel.max(1), "low", "high").height(6).span(6)
    return [panel.repeat("block").repeat_direction("h").max_per_row(4)]


def agreement() -> Sequence[Panel]:
    """Whether skipping still answers as full depth does."""
    dashed = [
        DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
        DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
    ]
    disagreement = lines(
        "Disagreement",
        "Share of the evidence rows of an hour whose answer differs from full depth, the ends of "
        "its 99 % interval, and the certified ε (dashed); for the risk in force; all instances. "
        "Where traffic has slices, choose one above.",
        "percentunit",
        [
            query(
                f'{DISAGREEMENT}:{end}_1h{{model="$model"{SLICES}}} and on (model, slice, risk) '
                'count_values by (model, slice) ("risk", skipserve_certified_risk_ratio)',
                name,
            )
            for end, name in (("ratio", "disagreement"), ("low", "low"), ("high", "high"))
        ]
        + [query(f"max({gauge('skipserve_certified_risk_ratio', SLICES)})", "certified ε")],
    )
    return [
        band(disagreement.override_by_name("certified ε", dashed), "low", "high").span(12),
        lines(
            "Alarm",
            "Wealth of the bet that evidence rows disagree more often than certified, and the "
            "level at which what is in force is withdrawn. It may be looked at at any time.",
            "none",
            [
                query(
                    f"max by (slice) ({gauge('skipserve_alarm_evidence', SLICES)})",
                    "against the certificate {{slice}}",
                ),
                query(f"max({gauge('skipserve_alarm_level')})", "level"),
            ],
            log=True,
        ).span(12),
        lines(
            "Evidence rows",
            "Routed rows run at full depth to see what the router would have answered, those that "
            "disagreed, and those that could not be run.",
            "suffix: rows/s",
            [
                query(total(rate("skipserve_evidence_rows_total", SLICES)), "evidence"),
                query(total(rate("skipserve_evidence_disagreements_total", SLICES)), "disagreed"),
                query(total(rate("skipserve_evidence_dropped_rows_total", SLICES)), "dropped"),
            ],
        ).span(8),
        states(
            "Router state",
            "Which state the router is in, by default.",
            [
                query(
                    f"max by (state, slice) ({gauge('skipserve_router_state', SLICES)})",
                    "{{state}} {{slice}}",
                )
            ],
        ).span(8),
        number(
            "Fall-backs",
            "Times that the alarm switched skipping off in the time shown.",
            "none",
            [now(total(increase("skipserve_router_fallbacks_total", SLICES, "$__range")))],
            ANY,
        )
        .height(8)
        .span(3),
        bars(
            "Thresholds in force",
            "The signal from which a row skips, by decision, for a request that names no risk.",
            "none",
            [now(f"max by (stage) ({gauge('skipserve_threshold', SLICES)})", "decision {{stage}}")],
        ).span(5),
    ]


def drift() -> Sequence[Panel]:
    """Whether the signal is distributed as at calibration."""
    tenths = 'model_stage_bin:skipserve_signal_rows:share_1h{model="$model",bin="%d"}'
    return [
        lines(
            "Drift",
            "Population stability index of the signal at each decision against calibration: over "
            "an hour (all instances). 0.1 is a small shift, 0.25 another population.",
            "none",
            [query('model_stage:skipserve_signal:psi_1h{model="$model"}', "decision {{stage}}")],
            PSI,
        ).span(8),
        lines(
            "Drift, as the service sees it",
            "The same index over the service's own sliding window; it needs no Prometheus, and is "
            "absent while there are too few rows.",
            "none",
            [
                query(
                    f"max by (stage) ({gauge('skipserve_signal_drift_ratio')})",
                    "decision {{stage}}",
                )
            ],
            PSI,
        ).span(8),
        lines(
            "Signal in the outer tenths",
            "Share of the rows whose signal lay in the lowest and in the highest tenth of its "
            "distribution at calibration; 10 % each if nothing drifted. All instances.",
            "percentunit",
            [
                query(tenths % 0, "decision {{stage}}, lowest"),
                query(tenths % 9, "decision {{stage}}, highest"),
            ],
            [(None, "blue"), (0.1, "green")],
        ).span(8),
    ]
