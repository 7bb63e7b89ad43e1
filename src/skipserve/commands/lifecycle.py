"""Versions of a model: list them, go back to one, and have a running service open what is there."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skipserve.artifacts.versions import Version

Name = Annotated[str, typer.Argument(help="Name of a model in the store.")]
Store = Annotated[Path, typer.Option(help="Folder of .mar files.")]


def versions(name: Name, model_store: Store = Path("model_store")) -> None:
    """List a model's versions, newest first: hash, date, what is certified; * is in force."""
    from skipserve.artifacts.versions import versions_of

    for one in versions_of(model_store, name):
        typer.echo(_line(one))


def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(min=1, help="By default the one before the one in force.")
    ] = None,
    model_store: Store = Path("model_store"),
) -> None:
    """Put a former version of a model in force, every file in it checked first."""
    from skipserve.artifacts.versions import roll_back

    was, now = roll_back(model_store, name, version)
    typer.echo(
        f"{name}: version {now} is in force (was {was or 'damaged'}); a running service opens it "
        "at `skipserve reload`"
    )


def reload(
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", help="Of the running service.")
    ] = 9464,
) -> None:
    """Have a running service open the archives as they are now, no request lost.

    Where one is damaged, the service goes on with what it has open.
    """
    from skipserve.hosts.reloads import ask_to_reload

    typer.echo(ask_to_reload(metrics_port))


def _line(one: Version) -> str:
    from skipserve.artifacts.summary import summary_of
    from skipserve.files import sha256_of

    written = datetime.fromtimestamp(one.archive.stat().st_mtime).astimezone()
    mark = "*" if one.in_force else " "
    date = written.isoformat(" ", "minutes")
    number = one.number or "?"
    return f"{mark} {number:>3}  {date}  {sha256_of(one.archive)[:12]}  {summary_of(one.archive)}"
