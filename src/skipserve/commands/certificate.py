"""`skipserve certificate`: what a running model has earned on its traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skipserve.safety.earned import Earned

Model = Annotated[str, typer.Argument(help="Name of a model that is being served.")]
Port = Annotated[int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", help="Of the running service.")]


def certificate(
    model: Model,
    metrics_port: Port = 9464,
    export: Annotated[
        Path | None, typer.Option(help="Write what was earned to a file, for another store.")
    ] = None,
    take: Annotated[
        Path | None,
        typer.Option("--import", help="Put in force what --export wrote where the same files ran."),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget what was earned, and damaged files with it.")
    ] = False,
) -> None:
    """Show what a model has earned on its traffic, and how far it is with the next certificate."""
    from skipserve.errors import ConfigError

    if sum((export is not None, take is not None, reset)) > 1:
        raise ConfigError("ask for one of --export, --import and --reset")
    earned = find_earned(metrics_port, model)
    if reset:
        earned.reset()
        typer.echo(f"{model}: what was earned is forgotten; epoch {earned.read().epoch} begins")
    elif take is not None:
        earned.take_over(take)
        typer.echo(f"{model}: {take} is in force within a second")
    elif export is not None:
        earned.read()
        earned.write(export)
        typer.echo(export)
    else:
        _print(model, earned)


def find_earned(metrics_port: int, model: str) -> Earned:
    """What a model has earned that a running service serves.

    Raises:
        LaunchError: If there is no such service or model.
    """
    from skipserve.hosts.control import find_router
    from skipserve.hosts.states import find_state
    from skipserve.safety.earned import Earned
    from skipserve.safety.kind import Kind
    from skipserve.watching.scrape import fetch

    router = find_router(metrics_port, model)
    artifact, folder = find_state(router.switch.parent.parent, model)
    seen = fetch(f"http://127.0.0.1:{metrics_port}")
    labels = [
        seen.by(label, "skipserve_model_info", model=model)
        for label in ("backend", "provider", "precision")
    ]
    return Earned(artifact, folder, Kind.of(*labels))


def _print(model: str, earned: Earned) -> None:
    found = earned.read()
    spec = earned.spec
    typer.echo(
        f"{model}: certificate = {spec.certificate}, epoch {found.epoch}, "
        f"{found.rows:,} of {found.epoch_rows:,} evidence rows"
    )
    for one in found.risks:
        text = f"  risk {one.risk:g}: "
        place = found.places[one.risk]
        if place is None:
            text += "nothing is in force that was earned; "
        else:
            text += f"candidate {place.candidate + 1} of {earned.size(place)} is in force"
            proof = found.proofs.get(one.risk)
            if proof is not None:
                text += (
                    f", earned in epoch {proof.epoch} on {proof.rows:,} rows, of which "
                    f"{proof.disagreements} disagreed"
                )
            text += "; "
        typer.echo(text + (one.told() if earned.earns(found) else "nothing is being earned"))
    for line in found.history:
        typer.echo(f"  {line}")
