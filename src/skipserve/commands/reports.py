"""The two commands that ask whether a router is worth it: inspect and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from skipserve.commands import console

# Rows that `inspect` looks at if it may choose; a first look should take seconds.
INSPECTED = 5_000

Named = Annotated[
    str, typer.Argument(help="A checkpoint or artifact directory, or a name in artifacts/.")
]
Data = Annotated[
    Path | None,
    typer.Option(help="Rows: .npz, .npy, .parquet, .csv or .jsonl; default: its test split."),
]
Labels = Annotated[
    str | None, typer.Option(help="Their column of true classes, or a .npy file of them.")
]
Out = Annotated[Path | None, typer.Option(help="Default: reports/NAME.")]


def inspect(
    model: Named,
    data: Data = None,
    labels: Labels = None,
    risk: Annotated[float, typer.Option(help="ε that the verdict allows.")] = 0.01,
    out: Out = None,
) -> None:
    """Look at a network block by block, and say whether a router is worth building."""
    from skipserve.reporting.figures import block_figure
    from skipserve.reporting.inspect import inspect_model, table
    from skipserve.reporting.model import find_model
    from skipserve.reporting.sample import take_sample

    opened = find_model(model)
    sample = take_sample(opened, data, labels)
    found = inspect_model(opened, sample if data else sample.first(INSPECTED), risk)
    file = (out or Path("reports") / opened.name) / "blocks.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(block_figure(found).png)
    Console(highlight=False).print(table(found))
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"figure: {file}", soft_wrap=True)
    typer.echo(found.verdict)


def report(
    model: Named,
    data: Data = None,
    labels: Labels = None,
    risk: Annotated[
        float | None,
        typer.Option(help="A certified ε to speak of; default: the nearest to 0.01."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="It serves with; default: export/NAME.toml says, or 16."),
    ] = None,
    out: Out = None,
) -> None:
    """Measure a model, and write one page with its figures: what skipping saves and risks."""
    from skipserve.reporting.model import find_model
    from skipserve.reporting.page import write_report
    from skipserve.reporting.report import measure
    from skipserve.reporting.sample import take_sample
    from skipserve.reporting.words import first_line

    opened = find_model(model)
    sample = take_sample(opened, data, labels)
    with console.status(f"reporting on {opened.name}") as status:
        size = batch_size or _serving_batch(opened.name)
        found = measure(opened, sample, size, risk, lambda line: status.update(f"{line} …"))
        status.update("drawing …")
        page = write_report(found, out or Path("reports") / opened.name)
    console.print(first_line(found), soft_wrap=True, markup=False)
    typer.echo(page)


def _serving_batch(name: str) -> int:
    from skipserve.building.buildfile import read_build_file

    file = Path("export") / f"{name}.toml"
    # A lone request says nothing about batches: 16 is what the examples serve with.
    size = read_build_file(file).serving.batch_size if file.is_file() else 1
    return size if size > 1 else 16
