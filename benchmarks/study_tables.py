"""The tables of the study's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from study_cells import FAMILIAR, HALF, Variant
from study_results import TASKS, Interval, Results, Row, base_variants, interval

SIGNALS = {  # as stored, and as shown
    "norm": "norm",
    "norm, one threshold": "norm, one threshold for all depths",
    "small norm": "small norm",
    "projected_norm": "projected norm",
    "probe": "probe",
    "gate": "gate",
    "margin": "margin",
    "confidence": "confidence",
    "confidence, own heads": "confidence, heads of their own",
    "fixed depth": "*fixed depth*",
    "fixed depth, own heads": "*fixed depth, heads of their own*",
    "random": "*random*",
    "oracle": "*oracle*",
    "oracle, own heads": "*oracle, heads of their own*",
}


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def field(rows: Sequence[Row], name: str) -> Interval:
    return interval([row[name] for row in rows])


def with_refusals(text: str, rows: Sequence[Row]) -> str:
    refused = sum(not row["certified"] for row in rows if "oracle" not in row["what"])
    return f"{text} ({refused} of {len(rows)} refused)" if refused else text


def run_rates(results: Results, task: str) -> str:
    """Certified run rate and disagreement on test, by signal and network."""
    variants = base_variants(task)
    lines = [
        ["accuracy, full depth", *(full_accuracy(results, task, one) for one in variants)],
    ]
    for what, shown in SIGNALS.items():
        cells = []
        for variant in variants:
            rows = results.certified(task, variant, what=what, condition=FAMILIAR)
            wrong = field(rows, "disagreement").mean
            text = f"{field(rows, 'run_rate').percent()} · {100 * wrong:.2f} %" if rows else "–"
            cells.append(with_refusals(text, rows))
        lines.append([shown, *cells])
    return markdown(["decided by", *(variant.label for variant in variants)], lines)


def degradation(results: Results, task: str) -> str:
    """Accuracy lost on test when a share of the blocks is dropped, by whom and how."""
    dropped = np.array([0.25, 0.5, 0.75])
    variants = [TASKS[task].base("residual", exits) for exits in (False, True)]
    header = ["dropped by", "policy"]
    header += [f"{one.label}: {share:.0%} dropped" for one in variants for share in dropped]
    lines = []
    for what, shown in SIGNALS.items():
        for policy in ("exit", "skip") if "oracle" not in what else ():
            line = [shown, policy]
            for variant in variants:
                found = results.curves(task, variant, what, "accuracy", 1 - dropped, policy)
                if len(found):
                    full = [
                        cell["full"][FAMILIAR]["accuracy"] for cell in results.of(task, variant)
                    ]
                    lost = (np.array(full)[:, None] - found).T
                    line += [interval(each.tolist()).percent() for each in lost]
            if len(line) > 2:
                lines.append(line)
    return markdown(header, lines)


def full_accuracy(results: Results, task: str, variant: Variant, condition: str = FAMILIAR) -> str:
    cells = results.of(task, variant)
    return interval([cell["full"][condition]["accuracy"] for cell in cells]).percent()


def off_manifold(results: Results, task: str, variant: Variant, signals: Sequence[str]) -> str:
    """Disagreement and run rate of certified routers by condition, guard off and on."""
    cells = results.of(task, variant)
    if not cells:
        return "Not measured yet."
    header = ["rows", "accuracy, full depth", "held back"]
    for what in signals:
        header += [f"{SIGNALS[what]}, no guard", f"{SIGNALS[what]}, guard"]
    lines = []
    for condition in cells[0]["full"]:
        guarded = results.certified(task, variant, what="norm", guard=True, condition=condition)
        line = [condition, full_accuracy(results, task, variant, condition)]
        line.append(f"{100 * field(guarded, 'held_back').mean:.0f} %")
        for what in signals:
            for guard in (False, True):
                rows = results.certified(task, variant, what=what, guard=guard, condition=condition)
                wrong, ran = field(rows, "disagreement"), field(rows, "run_rate")
                line.append(f"{wrong.percent()} · {100 * ran.mean:.0f} %")
        lines.append(line)
    return markdown(header, lines)


def policies(results: Results) -> str:
    """Certified run rate of ``exit`` beside ``skip``."""
    lines = []
    for task in TASKS:
        for variant in base_variants(task):
            for what in ("norm", "confidence", "gate", "random"):
                pair = [
                    results.certified(task, variant, what=what, policy=policy, condition=FAMILIAR)
                    for policy in ("exit", "skip")
                ]
                if not all(pair):
                    continue
                line = [TASKS[task].title, variant.label, SIGNALS[what]]
                for rows in pair:
                    wrong = field(rows, "disagreement").mean
                    text = f"{field(rows, 'run_rate').percent()} · {100 * wrong:.2f} %"
                    line.append(with_refusals(text, rows))
                lines.append(line)
    return markdown(["task", "network", "decided by", "exit", "skip"], lines)


def placements(results: Results) -> str:
    """Residual, exit-aware: where the norms stand, and α."""
    header = ["task", "placement", "α", "accuracy, full depth"]
    shown = ("norm", "small norm", "projected_norm", "confidence", "fixed depth", "oracle")
    lines = []
    for task in TASKS:
        for norm in ("none", "pre", "post", "peri"):
            for alpha in (HALF, 1.0):
                variant = Variant("residual", True, norm, alpha)
                every, trained = results.every(task, variant), results.of(task, variant)
                if not every:
                    continue
                line = [TASKS[task].title, norm, "1/√2" if alpha == HALF else "1"]
                diverged = len(every) - len(trained)
                note = f" ({diverged} of {len(every)} diverged)" if diverged else ""
                line.append(full_accuracy(results, task, variant) + note)
                for what in shown:
                    rows = results.certified(task, variant, what=what, condition=FAMILIAR)
                    text = field(rows, "run_rate").percent()
                    line.append(with_refusals(text, rows))
                lines.append(line)
    return markdown([*header, *(SIGNALS[what] for what in shown)], lines)


def gates(results: Results, task: str, exits: bool) -> str:
    """How well the gate ranks rows beside other signals, and how far it opens, by condition."""
    variant = TASKS[task].base("gated", exits)
    cells = results.of(task, variant)
    if not cells:
        return "Not measured yet."
    shown = ("gate", "norm", "projected_norm", "probe", "confidence")
    lines = []
    for condition in cells[0]["full"]:
        line = [condition, interval([cell["opening"][condition] for cell in cells]).percent(2)]
        for what in shown:
            areas = [
                row["auroc"]
                for cell in cells
                for row in cell["ranking"]
                if (row["what"], row["condition"]) == (what, condition) and row["auroc"] is not None
            ]
            found = interval(areas)
            line.append(f"{found.mean:.2f} ± {found.half:.2f}" if len(areas) > 1 else "–")
        lines.append(line)
    return markdown(["rows", "gates open", *(SIGNALS[what] for what in shown)], lines)


def precisions(results: Results) -> str:
    """The router certified in FP32, run in FP16."""
    header = ["task", "network", "decided by", "run rate FP32", "FP16", "disagrees FP32", "FP16"]
    header += ["accuracy FP32", "FP16", "same answer, full depth", "same depth, routed"]
    names = ("run_rate_fp32", "run_rate_fp16", "disagreement_fp32", "disagreement_fp16")
    names += ("accuracy_fp32", "accuracy_fp16", "same_full", "same_depth")
    lines = []
    for task in TASKS:
        for variant in base_variants(task):
            for what in ("norm", "confidence", "confidence, own heads"):
                found = [
                    row
                    for cell in results.of(task, variant)
                    for row in cell["fp16"]
                    if row["what"] == what
                ]
                if found:
                    values = [f"{100 * field(found, name).mean:.2f} %" for name in names]
                    lines.append([TASKS[task].title, variant.label, SIGNALS[what], *values])
    return markdown(header, lines)
