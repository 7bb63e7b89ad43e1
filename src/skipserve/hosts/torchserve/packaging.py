"""Making archives of artifact, handler and settings with torch-model-archiver."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from skipserve.artifacts.archive import MODEL_CONFIG, OURS
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.artifacts.versions import next_number, put
from skipserve.errors import ConfigError
from skipserve.extras import require


def package(artifact: Path, handler: Path, serving: ServingConfig, model_store: Path) -> Path:
    """Make ``model_store/NAME.mar`` with torch-model-archiver, as the next version of the model.

    The one before is kept (artifacts/versions.py).

    Raises:
        ArtifactError: If the artifact is damaged.
        ConfigError: If the handler is not there.
        LaunchError: If torch-model-archiver is not installed.
    """
    require("model_archiver")
    manifest = open_artifact(artifact).manifest
    if not handler.is_file():
        raise ConfigError(f"handler {handler} does not exist; expected handlers/*.py")
    model_store.mkdir(parents=True, exist_ok=True)
    number = next_number(model_store, manifest.name)
    # The archiver works in $TMPDIR/NAME, so two at once need two of them; the archive is renamed
    # into place, so the scratch directory stands beside it.
    with tempfile.TemporaryDirectory(prefix=".package.", dir=model_store) as scratch:
        config = Path(scratch) / MODEL_CONFIG
        config.write_text(model_config(serving))
        out = Path(scratch) / "out"
        out.mkdir()
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", manifest.name, "--version", str(number)),
            *("--handler", str(handler.resolve()), "--config-file", str(config)),
            *("--extra-files", str(artifact.resolve()), "--export-path", str(out)),
        ]
        done = subprocess.run(  # noqa: S603 - our own interpreter and paths
            command, env={**os.environ, "TMPDIR": scratch}, capture_output=True, text=True
        )
        archive = out / f"{manifest.name}.mar"
        if done.returncode or not archive.is_file():
            said = f"{done.stdout}{done.stderr}".strip().splitlines() or ["it said nothing"]
            raise ConfigError(f"torch-model-archiver failed: {said[-1]}")
        return put(archive, model_store, manifest.name)


def model_config(serving: ServingConfig, workers: int = 1) -> str:
    """The archive's ``model-config.yaml``: TorchServe's keys, and ours.

    Args:
        serving: The settings.
        workers: Processes that TorchServe starts for the model.
    """
    values: dict[str, Any] = {
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": serving.batch_size,
        # Whole milliseconds, and never 0, which TorchServe takes for 100.
        "maxBatchDelay": max(1, math.ceil(serving.max_batch_delay_ms)),
        "jobQueueSize": serving.queue_size,
        "responseTimeout": serving.response_timeout_s,
        "startupTimeout": 300,
        OURS: serving.model_dump(mode="json"),
    }
    return msgspec.json.format(msgspec.json.encode(values)).decode()
