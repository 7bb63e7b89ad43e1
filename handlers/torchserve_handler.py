"""The TorchServe handler: TorchServe's requests in, TorchServe's responses out.

TorchServe opens this file by path and wants one class with ``initialize`` and ``handle``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from skipserve.artifacts.artifact import open_artifact
from skipserve.runtime.engine import Engine
from skipserve.schema import parse
from skipserve.serving import torchserve_patches
from skipserve.serving.config import ServingConfig
from skipserve.serving.messages import RawRequest
from skipserve.serving.service import Service
from skipserve.serving.switch import switch_of


class SkipserveHandler:
    """Serves the artifact in the archive it came with."""

    def initialize(self, context: Any) -> None:
        """Open and warm up the model; a failure ends the worker, its log says why."""
        logging.getLogger().setLevel(logging.WARNING)
        idle = torchserve_patches.apply()
        settings = parse(
            ServingConfig,
            (context.model_yaml_config or {}).get("skipserve", {}),
            "model-config.yaml",
        )
        engine = Engine(
            open_artifact(Path(context.system_properties["model_dir"])),
            backend=settings.backend,
            precision=settings.precision,
            provider=settings.provider,
            threads=settings.threads,
        )
        engine.warm_up(settings.batch_size)
        switch = switch_of(engine.manifest.name)
        self._service = Service(engine, settings, idle, switch)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes | str]:
        """Answer one batch; one entry of ``data`` is one request."""
        requests = [
            RawRequest(
                item.get("body"),
                {
                    k.lower(): v
                    for k, v in context.get_all_request_header(i).items()
                    if isinstance(v, str)
                },
            )
            for i, item in enumerate(data)
        ]
        replies = self._service.answer(requests)
        for i, reply in enumerate(replies):
            if reply.status != 200:
                context.set_response_status(reply.status, reply.reason, i)
            for name, value in reply.headers.items():
                context.set_response_header(i, name, value)
        return [reply.body for reply in replies]
