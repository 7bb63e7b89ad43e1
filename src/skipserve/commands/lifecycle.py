"""Versions of a model: see them, go back to one, and have a running service take up what is there."""

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
    """List the versions of a model, newest first."""
    from skipserve.artifacts.versions import versions as versions_of

    for one in versions_of(model_store, name):
        typer.echo(_line(one))


def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option(min=1, help="A version; by default the one before.")
    ] = None,
    model_store: Store = Path("model_store"),
) -> None:
    """Make an earlier version of a model the current one, its hashes checked first."""
    from skipserve.artifacts.versions import roll_back

    was, now = roll_back(model_store, name, to)
    typer.echo(
        f"{name}: version {now} is current (was {was or 'damaged'}); a running service takes it "
        "up by `skipserve reload`"
    )


def reload(
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", help="Of the running service.")
    ] = 9464,
) -> None:
    """Have a running service take up the archives as they are now, no request dropped.

    A damaged archive leaves the models as they were served before.
    """
    from skipserve.hosts.reload import ask_to_reload

    for line in ask_to_reload(metrics_port):
        typer.echo(line)


def _line(one: Version) -> str:
    from skipserve.artifacts.summary import summary_of
    from skipserve.files import sha256_of

    made = datetime.fromtimestamp(one.archive.stat().st_mtime).astimezone()
    mark = "*" if one.current else " "
    date = made.isoformat(" ", "minutes")
    return (
        f"{mark} {one.number or '?':>3}  {date}  {sha256_of(one.archive)[:12]}  "
        f"{summary_of(one.archive)}"
    )
