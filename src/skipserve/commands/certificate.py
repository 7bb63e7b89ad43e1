"""`skipserve certificate`: what a running model has earned on its traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipserve.commands.output import print_json
from skipserve.commands.parameters import METRICS_PORT, Json, MetricsPort, Served
from skipserve.intervals import spelled

if TYPE_CHECKING:
    from skipserve.safety.earned import EarnedRecord, EarnedStatus


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
    of_slice: Annotated[
        str | None,
        typer.Option("--slice", help="One slice, where the build file declares slices."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a model has earned on its traffic, and how far the next certificate is."""
    from skipserve.errors import ConfigError
    from skipserve.slices import sliced

    if sum((export is not None, take is not None, reset, json)) > 1:
        raise ConfigError(
            "--export, --import, --reset and --json exclude each other; give one of them"
        )
    found = find_earned(metrics_port, model, of_slice)
    if len(found) > 1 and (export is not None or take is not None):
        raise ConfigError(
            f"a file is of one slice, and {model} has {len(found)}; name one with --slice"
        )
    if json:
        slices = [{"slice": one.of_slice or None, **_values(one, one.read())} for one in found]
        print_json({"model": model, "slices": slices})
        return
    for earned in found:
        called = sliced(model, earned.of_slice)
        if reset:
            earned.reset()
            begun = earned.read().epoch
            typer.echo(f"{called}: what was earned is forgotten; epoch {begun} begins")
        elif take is not None:
            earned.take_over(take)
            typer.echo(f"{called}: {take} is in force within a second")
        elif export is not None:
            earned.read()
            earned.write(export)
            typer.echo(export)
        else:
            _print(called, earned, earned.read())


def find_earned(metrics_port: int, model: str, of_slice: str | None = None) -> list[EarnedRecord]:
    """The certificates that a running service has earned for a model, by slice of its traffic.

    Args:
        metrics_port: Of the service.
        model: What it is served as.
        of_slice: One of them; all by default.

    Raises:
        LaunchError: If there is no such service or model.
        ConfigError: If it has no such slice.
    """
    from skipserve.errors import ConfigError
    from skipserve.hosts.control import find_router
    from skipserve.hosts.directory import metrics_url
    from skipserve.hosts.states import find_state
    from skipserve.safety.earned import EarnedRecord
    from skipserve.safety.kind import Kind
    from skipserve.watching.scrape import fetch

    router = find_router(metrics_port, model)
    directory = router.switch.parent.parent
    artifact, folder = find_state(directory, model)
    seen = fetch(metrics_url(directory))
    labels = [
        seen.by(label, "skipserve_model_info", model=model)
        for label in ("backend", "provider", "precision")
    ]
    names = artifact.manifest.slices.names
    if of_slice is not None and of_slice not in names:
        have = f"only {', '.join(names)}" if names[0] else "its traffic is one whole"
        raise ConfigError(f"{model} has no slice {of_slice!r}: {have}")
    chosen = names if of_slice is None else [of_slice]
    return [EarnedRecord(artifact, folder, Kind.of(*labels), one) for one in chosen]


def _print(called: str, earned: EarnedRecord, found: EarnedStatus) -> None:
    spec = earned.spec
    typer.echo(
        f"{called}: certificate = {spec.certificate}, epoch {found.epoch}, "
        f"{found.rows:,} of {found.epoch_rows:,} evidence rows"
    )
    for one in found.risks:
        text = f"  risk {spelled(one.risk)}: "
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


def _values(earned: EarnedRecord, found: EarnedStatus) -> dict[str, Any]:
    risks = []
    for one in found.risks:
        proof, place = found.proofs.get(one.risk), found.places.get(one.risk)
        risks.append(
            {
                "risk": one.risk,
                "candidate_in_force": None if place is None else place.candidate + 1,
                "of_candidates": None if place is None else earned.size(place),
                "needed_rows": None if one.proposing else one.needed,
                "earned": proof
                and {
                    "epoch": proof.epoch,
                    "rows": proof.rows,
                    "disagreements": proof.disagreements,
                },
            }
        )
    return {
        "certificate": earned.spec.certificate,
        "earning": earned.earns(found),
        "withdrawn": found.withdrawn,
        "epoch": found.epoch,
        "rows": found.rows,
        "epoch_rows": found.epoch_rows,
        "proposing": next(
            ({"rows": one.rows, "of": one.needed} for one in found.risks if one.proposing), None
        ),
        "risks": risks,
        "history": found.history,
    }
