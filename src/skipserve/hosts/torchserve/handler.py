"""The TorchServe handler: TorchServe's requests in, TorchServe's responses out.

An archive made without a handlers/ folder holds a copy of this file, which TorchServe opens by
path: one class with ``initialize`` and ``handle``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skipserve.artifacts.artifact import open_artifact
from skipserve.hosts.torchserve import worker
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.request_id import request_id
from skipserve.service.opening import open_service
from skipserve.telemetry.logs import Log


class SkipserveHandler:
    """Serves the artifact in the archive it came with."""

    def initialize(self, context: Any) -> None:
        """Open and warm up the model; a failure ends the worker, its log says why."""
        Log().attach()
        idle = worker.apply()
        artifact = open_artifact(Path(context.system_properties["model_dir"]))
        self._service = open_service(artifact, worker.service_settings(context), idle)
        idle.open_pulse(artifact.manifest.name)  # last, because it announces the worker

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes | str]:
        """Answer one batch; one entry of ``data`` is one request."""
        requests = []
        for i, item in enumerate(data):
            properties = context.get_all_request_header(i)
            headers = {k.lower(): v for k, v in properties.items() if isinstance(v, str)}
            name = request_id(headers, context.request_ids[i])
            # Header of the frontend for explanations; one of the client would stand before it.
            explain = properties.get("explain") == "True"
            requests.append(RawRequest(item.get("body"), headers, name, explain=explain))
        replies = self._service.answer(requests)
        for i, reply in enumerate(replies):
            if reply.status != 200:
                context.set_response_status(reply.status, reply.reason, i)
            for name, value in reply.headers.items():
                context.set_response_header(i, name, value)
        return [reply.body for reply in replies]
