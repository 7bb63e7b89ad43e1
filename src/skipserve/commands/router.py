"""`skipserve router`: switch a running model's router off and on, and see its state."""

from __future__ import annotations

from typing import Annotated

import typer

from skipserve.commands import completion
from skipserve.commands.output import print_json
from skipserve.commands.parameters import METRICS_PORT, Json, MetricsPort, Served


def on(model: Served, metrics_port: MetricsPort = METRICS_PORT) -> None:
    """Switch the router of a model on; the evidence of the alarm starts anew."""
    from skipserve.hosts.control import find_router

    before = find_router(metrics_port, model).set("on")
    typer.echo(f"{model}: on (was {before})")


def off(model: Served, metrics_port: MetricsPort = METRICS_PORT) -> None:
    """Switch the router of a model off: every request runs at full depth, whatever it asks for.

    The order outlives restarts: it is kept beside the archives, or in the folder SKIPSERVE_STATE.
    """
    from skipserve.hosts.control import find_router

    before = find_router(metrics_port, model).set("disabled")
    typer.echo(f"{model}: disabled (was {before}), also after a restart")


def status(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The name of a model that is served. Default: all of them.",
            autocompletion=completion.archived_names,
        ),
    ] = None,
    metrics_port: MetricsPort = METRICS_PORT,
    json: Json = False,
) -> None:
    """Show whether each router is on; the metrics show what the evidence rows found."""
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
    if json:
        models = {
            one.model: None
            if one.order is None
            else {"state": one.state(), "disabled_after_restart": one.stays_off()}
            for one in chosen
        }
        print_json({"routers": models})
        return
    for one in chosen:
        typer.echo(f"{one.model}: {said(one)}")
