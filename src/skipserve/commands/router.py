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
    from skipserve.hosts.control import find_router

    before = find_router(metrics_port, model).set("on")
    typer.echo(f"{model}: on (was {before})")


@app.command()
def off(model: Model, metrics_port: Port = 9464) -> None:
    """Serve a model at full depth until it is switched on again, whatever requests ask for.

    That outlives restarts: it is kept beside the archives, or in the folder SKIPSERVE_STATE.
    """
    from skipserve.hosts.control import find_router

    before = find_router(metrics_port, model).set("disabled")
    typer.echo(f"{model}: disabled (was {before}), also after a restart")


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="All by default.")] = None,
    metrics_port: Port = 9464,
) -> None:
    """Say how the switches stand; the metrics say what the evidence rows found."""
    from skipserve.hosts.control import RouterControl, find_router, find_routers

    def said(router: RouterControl) -> str:
        if router.order is None:
            return "no router"
        state, stays = router.state(), router.stays_off()
        if state == "disabled":
            return "disabled, also after a restart" if stays else "disabled, until a restart"
        told = f"{state} for {', '.join(slices)}" if (slices := router.fell_back()) else state
        return f"{told}, disabled after a restart" if stays else told

    chosen = [find_router(metrics_port, model)] if model else find_routers(metrics_port).values()
    for one in chosen:
        typer.echo(f"{one.model}: {said(one)}")
