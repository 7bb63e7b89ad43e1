"""Rehearsal: a worker that joins others answers the examples of its models before it listens."""

from __future__ import annotations

from skipserve.errors import LaunchError
from skipserve.hosts.application import Application
from skipserve.hosts.models import Model
from skipserve.hosts.routes import Infer
from skipserve.hosts.warm_up import SENT, answer_in, question, require_example


async def rehearse(application: Application, model: Model) -> None:
    """Send a model its example inside the process that has it open.

    Raises:
        LaunchError: If it does not answer, or answers otherwise than its manifest says.
    """
    manifest = model.manifest
    for router in ("off", "on") if manifest.router is not None else ("off",):
        reply = await application.ask(Infer(model, ""), SENT, question(manifest, router))
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if reply.status != 200:
            raise LaunchError(
                f"{manifest.name} does not answer its own example: {reply.status} "
                f"{body[:500].decode(errors='replace')}"
            )
        if router == "off":
            require_example(manifest, answer_in(manifest, body))
