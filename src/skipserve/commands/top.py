"""The command `skipserve top`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from skipserve.commands.output import print_json
from skipserve.commands.parameters import HOST, METRICS_PORT, Host, Json, MetricsPort


def top(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL", help="The metrics address of a service. Default: --host and its port."
        ),
    ] = None,
    metrics_port: MetricsPort = METRICS_PORT,
    host: Host = HOST,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    only_once: Annotated[
        bool, typer.Option("--once", help="Print one frame and end, for scripts.")
    ] = False,
    json: Json = False,
) -> None:
    """Watch a running service: latency, skip rate, agreement; Ctrl-C ends.

    --json prints one look as JSON and ends.
    """
    from skipserve.address import url_of
    from skipserve.watching.screen import once, two_looks, watch

    address = url or url_of(host, metrics_port)
    if json:
        print_json({"url": address, **asdict(two_looks(address, interval))})
        return
    with suppress(KeyboardInterrupt):
        draw = once if only_once else watch
        draw(address, interval, Console(highlight=False))
