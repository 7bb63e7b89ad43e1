"""The page of a report: one self-contained HTML file, and its figures as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from skipserve.intervals import percent
from skipserve.reporting.curves import Curve
from skipserve.reporting.figures import Figure, block_figure, curve_figures
from skipserve.reporting.inputs import inputs_figure
from skipserve.reporting.inspect import columns
from skipserve.reporting.inspect import rows as block_rows
from skipserve.reporting.report import Findings
from skipserve.reporting.served_figures import (
    CLASS_ROWS,
    certified_figure,
    cost_figure,
    depth_figure,
    risk_figure,
)
from skipserve.reporting.tables import exit_rows, parity_rows, stress_rows
from skipserve.reporting.words import accuracy_promises, first_line, limits, promise, refused
from skipserve.style import css_variables
from skipserve.versions import version_of

PAGE = "report.html"
MADE_BY = ("skipserve", "torch", "onnxruntime")


def write_report(found: Findings, directory: Path) -> Path:
    """Write the page and its figures. Equal findings give equal files.

    Args:
        found: What was measured.
        directory: Made if it is not there; older files of ours in it are replaced.

    Returns:
        The page.
    """
    figures, notes = draw_figures(found)
    directory.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        (directory / f"{figure.name}.png").write_bytes(figure.png)
    page = directory / PAGE
    page.write_text(render(found, figures, notes), encoding="utf-8")
    return page


def draw_figures(found: Findings) -> tuple[list[Figure], list[str]]:
    """Every figure that can be drawn, and a sentence for each that cannot."""
    figures, notes = [], list(found.notes)
    fixed = _fixed(found)
    if found.points:
        figures.append(certified_figure(found.points, fixed, found.model.depth))
    if found.points and found.engine is not None:
        figures += [cost_figure(cost, fixed, found.points) for cost in found.costs]
    figures += curve_figures(found.curves, found.model.depth)
    if found.routed is not None:
        figures.append(depth_figure(found.routed, found.model.depth))
    drawn = inputs_figure(found.sample, found.depths)
    if isinstance(drawn, Figure):
        figures.append(drawn)
    else:
        notes.append(drawn)
    if found.routed is not None:
        bearers = risk_figure(found.routed, found.model.task.names)
        if bearers is not None:
            figures.append(bearers)
        elif found.model.task.classes:
            notes.append(
                "Who bears the risk is not drawn by class: it takes two classes of answers with "
                f"{CLASS_ROWS} rows each"
            )
    figures.append(block_figure(found.inspection))
    return figures, notes


def render(found: Findings, figures: Sequence[Figure], notes: Sequence[str]) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("skipserve.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        found=found,
        first_line=first_line(found),
        figures={figure.name: figure for figure in figures},
        promises=[
            (percent(point.certificate.risk), promise(point, found)) for point in found.points
        ],
        accuracy=accuracy_promises(found),
        refused=refused(found),
        limits=limits(found) if found.points else [],
        costs=_cost_rows(found),
        cost_names=[f"cost-{cost.batch_size}" for cost in found.costs],
        columns=columns(found.inspection),
        blocks=block_rows(found.inspection),
        exits=exit_rows(found),
        stress=stress_rows(found),
        parity=parity_rows(found),
        facts=_facts(found),
        notes=notes,
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
    )


def _fixed(found: Findings) -> Curve:
    return next(one for one in found.curves if one.name == "fixed")


def _cost_rows(found: Findings) -> list[tuple[str, str, str, list[str]]]:
    """Rows of the cost table: name, blocks, disagreement, milliseconds by batch size."""
    if not found.costs:
        return []
    fixed = _fixed(found)
    wrong = dict(zip(fixed.blocks.tolist(), fixed.disagreement.tolist(), strict=True))
    depth = found.model.depth
    lines = [
        ("the whole network", f"{depth}", "0%", [f"{cost.full_ms:.3g}" for cost in found.costs])
    ]
    for blocks in sorted(found.costs[0].fixed_ms, reverse=True):
        ms = [f"{cost.fixed_ms[blocks]:.3g}" for cost in found.costs]
        lines.append((f"fixed depth {blocks}", f"{blocks}", f"{wrong[blocks]:.2%}", ms))
    for blocks in sorted(found.costs[0].cut_ms, reverse=True):
        ms = [f"{cost.cut_ms[blocks]:.3g}" for cost in found.costs]
        name = f"cut off at {blocks} and exported alone" if blocks < depth else "exported alone"
        lines.append((name, f"{blocks}", f"{wrong[blocks]:.2%}", ms))
    for point in found.points:
        risk = point.certificate.risk
        ms = [f"{cost.router_ms[risk]:.3g}" for cost in found.costs]
        ran = f"{point.run_rate * depth:.2f}"
        lines.append((f"router, ε = {percent(risk)}", ran, f"{point.seen.value:.2%}", ms))
    return lines


def _facts(found: Findings) -> list[tuple[str, str]]:
    model, engine = found.model, found.engine
    facts = [
        ("Rows", f"{len(found.sample):,} from {found.sample.source}"),
        ("Depth", f"{model.depth} blocks"),
    ]
    if model.checkpoint is not None:
        facts.append(("Weights", f"sha256 {model.checkpoint.sha256[:16]}…"))
    elif model.artifact is not None:
        source = model.artifact.manifest.source
        facts.append(("Source", f"{source.kind} {source.name}, sha256 {source.sha256[:16]}…"))
    if engine is not None:
        facts += [
            ("Files", f"{len(engine.files)}: {', '.join(engine.files)}"),
            ("Runs", f"{engine.backend}, {engine.precision}, {engine.provider}, one thread"),
        ]
        if engine.manifest.router is not None:
            spec = engine.manifest.router
            facts.append(("Router", f"{spec.signal.replace('_', ' ')}, policy {spec.policy}"))
    facts.append(("Made by", ", ".join(f"{name} {version_of(name)}" for name in MADE_BY)))
    return facts
