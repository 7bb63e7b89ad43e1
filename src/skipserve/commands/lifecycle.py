"""Versions of a model: list them, go back to one, and have a running service open what is there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from skipserve.commands.output import print_json
from skipserve.commands.parameters import (
    METRICS_PORT,
    STORE,
    Archived,
    Json,
    MetricsPort,
    ModelStore,
)


def versions(model: Archived, model_store: ModelStore = STORE, json: Json = False) -> None:
    """List the versions of a model, newest first; * marks the one in force."""
    from skipserve.artifacts.summary import summary_of
    from skipserve.artifacts.versions import versions_of
    from skipserve.files import sha256_of

    found: list[dict[str, Any]] = [
        {
            "version": one.number or None,
            "in_force": one.in_force,
            "written": datetime.fromtimestamp(one.archive.stat().st_mtime).astimezone(),
            "sha256": sha256_of(one.archive),
            "archive": one.archive,
            "summary": summary_of(one.archive),
        }
        for one in versions_of(model_store, model)
    ]
    if json:
        print_json({"model": model, "versions": found})
        return
    for values in found:
        typer.echo(_line(**values))


def rollback(
    model: Archived,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION", min=1, help="Default: the version before the one in force."
        ),
    ] = None,
    model_store: ModelStore = STORE,
) -> None:
    """Put another version of a model in force; every file in it is checked first."""
    from skipserve.artifacts.versions import roll_back

    was, now = roll_back(model_store, model, version)
    typer.echo(
        f"{model}: version {now} is in force (was {was or 'damaged'}); a running service opens it "
        "at `skipserve reload`"
    )


def reload(metrics_port: MetricsPort = METRICS_PORT) -> None:
    """Make a running service open the archives as they are now; no request is lost.

    If an archive is damaged, the service continues with the archives it has open.
    """
    from skipserve.hosts.reloads import ask_to_reload

    typer.echo(ask_to_reload(metrics_port))


def _line(
    version: int | None, in_force: bool, written: datetime, sha256: str, summary: str, **_: Any
) -> str:
    mark = "*" if in_force else " "
    date = written.isoformat(" ", "minutes")
    return f"{mark} {version or '?':>3}  {date}  {sha256[:12]}  {summary}"
