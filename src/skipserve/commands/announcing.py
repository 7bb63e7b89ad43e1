"""What `serve` prints while it starts, and once it is ready."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skipserve.commands import console
from skipserve.commands.progress import watching

if TYPE_CHECKING:
    from skipserve.hosts.launcher import Server
    from skipserve.telemetry.logs import Log

logger = logging.getLogger("skipserve.cli")


@contextmanager
def while_starting(log: Log) -> Iterator[None]:
    """Show that the models are being started, unless the log is read by a machine."""
    if log.format == "json" or console.is_terminal:  # a bar would mix with what the service says
        yield
        return
    with watching("serve: starting the models"):
        yield


def announce(server: Server, log: Log) -> None:
    """Say where the models answer, and how to ask them."""
    if log.format == "json":
        names = ", ".join(manifest.name for manifest in server.manifests)
        logger.info("ready: serving %s at %s", names, server.url(server.manifests[0]))
        return
    for manifest in server.manifests:
        console.print(f"serving {manifest.name} at {server.url(manifest)}", markup=False)
    console.print(f"metrics at {server.address.metrics_url}/metrics; try:\n", markup=False)
    console.print(server.curl(), markup=False, soft_wrap=True)
    console.print("\nready; Ctrl-C stops")
