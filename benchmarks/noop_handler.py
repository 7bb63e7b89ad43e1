"""The least a TorchServe handler can do: every request gets the same bytes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from skipserve.artifacts.artifact import open_artifact
from skipserve.serving import torchserve_patches
from skipserve.serving.exposition import mark_live


class NoopHandler:
    def initialize(self, context: Any) -> None:
        logging.getLogger().setLevel(logging.WARNING)
        torchserve_patches.apply()
        mark_live(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        example = open_artifact(Path(context.system_properties["model_dir"])).manifest.example
        self._body = msgspec.json.encode({"outputs": [{"label": example.label}]})

    def handle(self, data: list[Any], context: Any) -> list[bytes]:
        return [self._body] * len(data)
