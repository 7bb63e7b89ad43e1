"""`skipserve certificate`: what a running model has earned on its traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipserve.commands.output import print_json
from skipserve.commands.parameters import METRICS_PORT, Json, MetricsPort, Served

if TYPE_CHECKING:
    from skipserve.safety.earned import Earned, Found


def certificate(
    model: Served,
    metrics_port: MetricsPort = METRICS_PORT,
    export: Annotated[
        Path | None, typer.Option(help="Write what was earned to a file, for another store.")
    ] = None,
    take: Annotated[
        Path | None,
        typer.Option("--import", help="Put in force what --export wrote where the same files ran."),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget what was earned, and any damaged files of it.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a model has earned on its traffic, and how far the next certificate is."""
    from skipserve.errors import ConfigError

    if sum((export is not None, take is not None, reset, json)) > 1:
        raise ConfigError(
            "--export, --import, --reset and --json exclude each other; give one of them"
        )
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
    elif json:
        print_json(_values(model, earned, earned.read()))
    else:
        _print(model, earned, earned.read())


def find_earned(metrics_port: int, model: str) -> Earned:
    """What a model has earned that a running service serves.

    Raises:
        LaunchError: If there is no such service or model.
    """
    from skipserve.hosts.control import find_router
    from skipserve.hosts.states import find_state
    from skipserve.safety.earned import Earned
    from skipserve.safety.keeper import Kind
    from skipserve.watching.scrape import fetch

    router = find_router(metrics_port, model)
    artifact, folder = find_state(router.switch.parent.parent, model)
    seen = fetch(f"http://127.0.0.1:{metrics_port}")
    labels = [
        seen.by(label, "skipserve_model_info", model=model)
        for label in ("backend", "provider", "precision")
    ]
    return Earned(artifact, folder, Kind.of(*labels))


def _print(model: str, earned: Earned, found: Found) -> None:
    spec = earned.spec
    typer.echo(
        f"{model}: certificate = {spec.certificate}, epoch {found.epoch}, "
        f"{found.rows:,} of {found.epoch_rows:,} evidence rows"
    )
    for one in found.risks:
        text = f"  risk {one.risk:g}: "
        if one.in_force is None:
            text += "nothing is in force that was earned; "
        else:
            text += f"candidate {one.in_force + 1} of {earned.rules.candidates} is in force"
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


def _values(model: str, earned: Earned, found: Found) -> dict[str, Any]:
    risks = []
    for one in found.risks:
        proof = found.proofs.get(one.risk)
        risks.append(
            {
                "risk": one.risk,
                "candidate_in_force": None if one.in_force is None else one.in_force + 1,
                "needed_rows": one.needed,
                "earned": proof
                and {
                    "epoch": proof.epoch,
                    "rows": proof.rows,
                    "disagreements": proof.disagreements,
                },
            }
        )
    return {
        "model": model,
        "certificate": earned.spec.certificate,
        "earning": earned.earns(found),
        "withdrawn": found.withdrawn,
        "epoch": found.epoch,
        "rows": found.rows,
        "epoch_rows": found.epoch_rows,
        "candidates": earned.rules.candidates,
        "risks": risks,
        "history": found.history,
    }
