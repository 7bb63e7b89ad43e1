"""Arguments and options that several commands have: one name and one help text each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from skipserve.commands import completion
from skipserve.intervals import ratio

# The group of options that say which service is meant.
SERVICE = "Service"


def parse_risk(text: str | float) -> float:
    """The ratio that ``1%`` or ``0.01`` means; a default comes as a number.

    Raises:
        BadParameter: If it is no number between 0 and 1.
    """
    return _ratio(text, "1% or 0.01")


def parse_confidence(text: str | float) -> float:
    """The ratio that ``95%`` or ``0.95`` means.

    Raises:
        BadParameter: If it is no number between 0 and 1.
    """
    return _ratio(text, "95% or 0.95")


def _ratio(text: str | float, example: str) -> float:
    try:
        found = ratio(str(text))
    except ValueError:
        found = -1.0
    if not 0 < found < 1:
        write = f"write {example}"
        # Who writes 5 means 5%; 150% is no slip of that kind.
        if 1 <= found < 100 and not str(text).endswith("%"):
            write = f"write {found:g}% or {found / 100:g}"
        raise typer.BadParameter(f"{text!r} is not between 0 and 1; {write}")
    return found


def finite(value: float | None) -> float | None:
    """A number as it was given; ranges let ``nan`` pass.

    Raises:
        BadParameter: If it is no number, or without end.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def positive(value: float | None) -> float | None:
    """A number as it was given.

    Raises:
        BadParameter: If it is not more than 0, or without end.
    """
    finite(value)
    if value is not None and value <= 0:
        raise typer.BadParameter(f"{value:g}: expected more than 0")
    return value


CertificatePath = Annotated[
    Path, typer.Argument(metavar="CERTIFICATE", help="A certificate, a JSON file.")
]
BuildPath = Annotated[
    Path,
    typer.Argument(
        metavar="BUILD_FILE",
        help="The build file, export/NAME.toml.",
        autocompletion=completion.build_files,
    ),
]
Built = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name in artifacts/ or checkpoints/, or such a directory.",
        autocompletion=completion.model_names,
    ),
]
Archived = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The name of a model in the model store.",
        autocompletion=completion.archived_names,
    ),
]
Served = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The name of a model that a service on this machine serves.",
        autocompletion=completion.archived_names,
    ),
]
Packed = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An artifact directory, an archive (.mar), or the name of one in artifacts/ or "
        "model_store/.",
        autocompletion=completion.artifacts,
    ),
]
ModelStore = Annotated[Path, typer.Option(help="The folder of archives (.mar).")]
Host = Annotated[
    str,
    typer.Option(help="The address of the service, IPv4 or IPv6.", rich_help_panel=SERVICE),
]
Port = Annotated[
    int,
    typer.Option(
        envvar="SKIPSERVE_PORT",
        min=1,
        max=65533,
        help="The port of the service for requests.",
        rich_help_panel=SERVICE,
    ),
]
MetricsPort = Annotated[
    int,
    typer.Option(
        envvar="SKIPSERVE_METRICS_PORT",
        min=1,
        max=65535,
        help="The port of the service for metrics and probes.",
        rich_help_panel=SERVICE,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, for programs to read.")
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        help="The column of texts; twice for pairs. Default: those the model was built with, or "
        "the only one."
    ),
]
Queries = Annotated[
    str | None,
    typer.Option(
        "--query",
        help="The column that says which query a row belongs to, where a task counts queries. "
        "Default: the one the model was built with, or the first text of each pair.",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="CPU cores to use; 0 uses all.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows that run together.")]
ROWS = "a .npz, .npy, .parquet, .csv or .jsonl file"
STORE = completion.STORE
HOST, PORT, METRICS_PORT = "127.0.0.1", 8080, 9464
