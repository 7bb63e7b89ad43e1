"""The least a TorchServe handler can do: every request gets the same bytes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from skipserve.artifacts.artifact import open_artifact
from skipserve.hosts.torchserve import worker


class NoopHandler:
    def initialize(self, context: Any) -> None:
        logging.getLogger().setLevel(logging.WARNING)
        idle = worker.apply()
        manifest = open_artifact(Path(context.system_properties["model_dir"])).manifest
        self._body = msgspec.json.encode({"outputs": [{"answer": manifest.example.answer}]})
        idle.open_pulse(manifest.name)

    def handle(self, data: list[Any], context: Any) -> list[bytes]:
        return [self._body] * len(data)
