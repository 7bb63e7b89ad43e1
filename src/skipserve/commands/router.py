"""`skipserve router`: switch a running model's router off and on, and see how it stands."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Switch a running model's router.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of a model that is being served.")]
Port = Annotated[int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", help="Of the running service.")]


@app.command()
def on(model: Model, metrics_port: Port = 9464) -> None:
    """Let a model skip again, with evidence starting afresh."""
    from skipserve.serving.control import find_switches, throw

    before = throw(find_switches(metrics_port), model, "on")
    typer.echo(f"{model}: on (was {before})")


@app.command()
def off(model: Model, metrics_port: Port = 9464) -> None:
    """Serve a model at full depth until it is switched on again, whatever requests ask for."""
    from skipserve.serving.control import find_switches, throw

    before = throw(find_switches(metrics_port), model, "disabled")
    typer.echo(f"{model}: disabled (was {before})")


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="All by default.")] = None,
    metrics_port: Port = 9464,
) -> None:
    """Say how the switches stand; the metrics say what the shadow runs found."""
    from skipserve.errors import ConfigError
    from skipserve.serving.control import find_switches, state_of

    switches = find_switches(metrics_port)
    if model is not None and model not in switches:
        raise ConfigError(f"this service has no model {model!r}, only {', '.join(switches)}")
    for name in [model] if model else switches:
        typer.echo(f"{name}: {state_of(switches[name])}")
