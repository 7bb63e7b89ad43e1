"""Rows of the dashboard about what traffic has earned."""

from __future__ import annotations

from collections.abc import Sequence

from panels import Panel, bars, lines, now, number, query
from queries import (
    SLICES,
    gauge,
    rate,
    share,
)


def earning() -> Sequence[Panel]:
    """How far the certificate is that the model's own traffic earns."""
    rows = gauge("skipserve_earning_rows", SLICES)
    needed = gauge("skipserve_earning_needed_rows", SLICES)
    in_force = f"max by (slice, risk) ({gauge('skipserve_earning_in_force', SLICES)})"
    proposed = f"max by (slice, risk) ({gauge('skipserve_earning_proposed', SLICES)}) == 1"
    differ = gauge("skipserve_earning_disagreements", SLICES)
    return [
        number(
            "Next certificate",
            "Evidence rows of the epoch, as a share of those that the next candidate takes, by "
            "risk; absent where the epoch will be over before. While the first rows of an epoch "
            "propose: these, as a share of those that shall.",
            "percentunit",
            [
                now(
                    f"max by (slice) ({rows}) / on (slice) group_right () "
                    f"min by (slice, risk) ({needed})",
                    "{{risk}} {{slice}}",
                ),
                now(
                    f"max by (slice) ({gauge('skipserve_earning_proposing_rows', SLICES)}) / "
                    "min by (slice) "
                    f"({gauge('skipserve_earning_proposing_needed_rows', SLICES)})",
                    "proposing {{slice}}",
                ),
            ],
        ).span(6),
        number(
            "Until then",
            "Time until the next candidate is earned, at the rate at which evidence comes in.",
            "s",
            [
                now(
                    f"min by (slice, risk) ({gauge('skipserve_earning_left_seconds', SLICES)})",
                    "{{risk}} {{slice}}",
                )
            ],
        ).span(6),
        lines(
            "Candidate in force",
            "Place of the candidate that traffic has earned, from careful to bold, by risk, in the "
            "artifact's own ladder or in one that was proposed on traffic; absent where rows run "
            "at full depth.",
            "none",
            [
                query(
                    f"{in_force} unless on (slice, risk) {proposed}",
                    "{{risk}} {{slice}}",
                ),
                query(
                    f"{in_force} and on (slice, risk) {proposed}",
                    "{{risk}} {{slice}}, proposed",
                ),
            ],
        ).span(6),
        lines(
            "Epoch",
            "An epoch ends after a number of evidence rows that was fixed beforehand, or when the "
            "alarm is raised.",
            "none",
            [
                query(
                    f"max by (slice) ({gauge('skipserve_earning_epoch', SLICES)})",
                    "epoch {{slice}}",
                )
            ],
        ).span(6),
        bars(
            "Disagreement of each candidate",
            "Share of the epoch's evidence rows that each candidate would have answered otherwise "
            "than full depth, from careful to bold.",
            "percentunit",
            [
                now(
                    f"max by (slice, candidate) ({differ}) "
                    f"/ on (slice) group_left () (max by (slice) ({rows}) > 0)",
                    "{{candidate}} {{slice}}",
                )
            ],
        ).span(12),
        lines(
            "Evidence that was lost",
            "Share of the rows drawn for evidence that could not be run; above 1 % the sample is "
            "not what it says. The other line is 1 while what is earned cannot be kept.",
            "percentunit",
            [
                query(
                    share(
                        rate("skipserve_evidence_dropped_rows_total", SLICES),
                        f"{rate('skipserve_evidence_rows_total', SLICES)} or "
                        f"{rate('skipserve_evidence_dropped_rows_total', SLICES)}",
                    ),
                    "dropped",
                ),
                query(f"max({gauge('skipserve_earning_problem', SLICES)})", "cannot be kept"),
            ],
        ).span(12),
    ]
