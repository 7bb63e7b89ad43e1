"""The two commands that ask whether a router is worth it: inspect and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from skipserve.commands import console
from skipserve.commands.output import print_json
from skipserve.commands.parameters import ROWS, Built, Json, Queries, Texts, parse_risk
from skipserve.commands.progress import watching

if TYPE_CHECKING:
    from skipserve.reporting.inspect import Inspection
    from skipserve.reporting.report import Findings

# Rows that `inspect` looks at if it may choose; a first look should take seconds.
INSPECTED = 5_000

Data = Annotated[
    Path | None, typer.Option(help=f"Rows of inputs: {ROWS}. Default: the model's test split.")
]
Labels = Annotated[
    str | None, typer.Option(help="The column of true classes, or a .npy file of them.")
]
Out = Annotated[Path | None, typer.Option(help="The folder to write to. Default: reports/NAME.")]


def inspect(
    model: Built,
    data: Data = None,
    labels: Labels = None,
    text: Texts = None,
    query: Queries = None,
    risk: Annotated[
        float,
        typer.Option(parser=parse_risk, metavar="RISK", help="The risk that the verdict allows."),
    ] = 0.01,
    out: Out = None,
    json: Json = False,
) -> None:
    """Show a network block by block, and say whether a router is worth building.

    The figure goes to reports/NAME/blocks.png.
    """
    with watching(f"{model}: opening") as watch:
        _look_up(model, data, labels, text, query)
        from skipserve.reporting.figures import block_figure
        from skipserve.reporting.inspect import inspect_model
        from skipserve.reporting.model import find_model
        from skipserve.reporting.sample import take_sample
        from skipserve.tasks import Units

        opened = find_model(model)
        watch.progress(f"{opened.name}: reading rows", None)
        sample = take_sample(opened, data, labels, text or (), query)
        if not data and len(sample) > INSPECTED:
            units = Units(opened.task, len(sample), sample.queries)
            sample = sample[units.some(INSPECTED)]
        found = inspect_model(
            opened, sample, risk, say=lambda line: watch.progress(f"{opened.name}: {line}", None)
        )
        figure = (out or Path("reports") / opened.name) / "blocks.png"
        figure.parent.mkdir(parents=True, exist_ok=True)
        figure.write_bytes(block_figure(found).png)
    if json:
        print_json({**_inspected(found), "figure": figure})
        return
    _print_inspected(found, figure)


def report(
    model: Built,
    data: Data = None,
    labels: Labels = None,
    text: Texts = None,
    query: Queries = None,
    risk: Annotated[
        float | None,
        typer.Option(
            parser=parse_risk,
            metavar="RISK",
            help="The certified risk of the summary. Default: the one nearest to 1%.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows that run together. Default: what export/NAME.toml says, or 16."
        ),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure what routing a model saves and risks, and write it as one page with figures."""
    with watching(f"{model}: opening") as watch:
        _look_up(model, data, labels, text, query)
        from skipserve.reporting.model import find_model
        from skipserve.reporting.page import write_report
        from skipserve.reporting.report import measure
        from skipserve.reporting.sample import take_sample
        from skipserve.reporting.words import first_line

        opened = find_model(model)
        watch.progress(f"{opened.name}: reading rows", None)
        sample = take_sample(opened, data, labels, text or (), query)
        size = batch_size or _serving_batch(opened.name)

        def say(line: str) -> None:
            watch.progress(f"{opened.name}: {line}", None)

        found = measure(opened, sample, size, risk, say)
        say("drawing")
        page = write_report(found, out or Path("reports") / opened.name)
    if json:
        print_json({**_reported(found), "summary": first_line(found), "page": page})
        return
    console.print(first_line(found), soft_wrap=True, markup=False)
    typer.echo(page)


def _look_up(
    model: str, data: Path | None, labels: str | None, text: list[str] | None, query: str | None
) -> None:
    """Look whether model and rows are there, before the import of torch, which takes seconds."""
    from skipserve.reporting.named import find_directory
    from skipserve.samples import check_named

    find_directory(model)
    check_named(data, labels, text or (), query)


def _serving_batch(name: str) -> int:
    from skipserve.building.buildfile import read_build_file

    file = Path("export") / f"{name}.toml"
    # A lone request says nothing about batches: 16 is what the examples serve with.
    size = read_build_file(file).serving.batch_size if file.is_file() else 1
    return size if size > 1 else 16


def _print_inspected(found: Inspection, figure: Path) -> None:
    from skipserve.reporting.inspect import table

    Console(highlight=False).print(table(found))
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"figure: {figure}", soft_wrap=True)
    typer.echo(found.verdict)


def _inspected(found: Inspection) -> dict[str, Any]:
    depths = found.readings.blocks.tolist()
    accuracy = [None] * len(depths) if found.accuracy is None else found.accuracy.tolist()
    prospect = found.prospect
    blocks = found.blocks
    return {
        "model": found.name,
        "rows": found.rows,
        "source": found.source,
        "verdict": found.verdict,
        "prospect": None if prospect is None else {**asdict(prospect), "gain": prospect.gain},
        "depths": [
            {"blocks": depth, "agreement": same, "accuracy": right}
            for depth, same, right in zip(depths, found.agreement.tolist(), accuracy, strict=True)
        ],
        "stream": None
        if blocks is None
        else {
            "norm": blocks.norm.tolist(),
            "update": blocks.update.tolist(),
            "influence": blocks.influence.tolist(),
        },
        "notes": found.notes,
    }


def _reported(found: Findings) -> dict[str, Any]:
    return {
        "model": found.model.name,
        "rows": len(found.sample),
        "source": found.sample.source,
        "depth": found.model.depth,
        "risk": found.risk,
        "certified": [
            {
                "measure": one.certificate.measure,
                "risk": one.certificate.risk,
                "confidence": one.certificate.confidence,
                "tested": asdict(one.tested),
                "seen": asdict(one.seen),
                "run_rate": one.run_rate,
                "accuracy": one.accuracy,
            }
            for one in found.points
        ],
        "refused": [
            {"measure": one.measure, "risk": one.risk, "reason": one.reason}
            for one in found.refused
        ],
        "fixed_depths": [
            {"risk": risk, "blocks": blocks} for risk, blocks in sorted(found.fixed.items())
        ],
        "notes": found.notes,
    }
