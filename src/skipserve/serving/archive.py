"""Archives: an artifact, the handler and its serving settings in the `.mar` TorchServe loads."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.errors import ArtifactError, ConfigError, LaunchError
from skipserve.files import machines_fault
from skipserve.runtime.engine import plan
from skipserve.schema import parse
from skipserve.serving.config import ServingConfig

MODEL_CONFIG = "model-config.yaml"
# Where requests are not pipelined, batches would be too small if they did not wait at all.
UNASKED_DELAY_MS = 0.05
# What zipfile raises, by where the damage is.
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Frontend:
    """What the frontend that will open an archive can do; by default, as it comes.

    Attributes:
        delay_unit_ms: What it counts ``maxBatchDelay`` in.
        pipelines: Whether it may send requests before it has the replies to earlier ones.
    """

    delay_unit_ms: float = 1.0
    pipelines: bool = False


def package(artifact: Path, handler: Path, serving: ServingConfig, model_store: Path) -> Path:
    """Make ``model_store/NAME.mar`` with torch-model-archiver, replacing an older one as a whole.

    Raises:
        ArtifactError: If the artifact is damaged.
        ConfigError: If the handler is not there.
    """
    manifest = open_artifact(artifact).manifest
    if not handler.is_file():
        raise ConfigError(f"handler {handler} does not exist; expected handlers/*.py")
    model_store.mkdir(parents=True, exist_ok=True)
    # The archiver works in $TMPDIR/NAME, so two at once need two of them; the archive is renamed
    # into place, so the scratch directory stands beside it.
    with tempfile.TemporaryDirectory(prefix=".package.", dir=model_store) as scratch:
        config = Path(scratch) / MODEL_CONFIG
        config.write_text(model_config(serving))
        out = Path(scratch) / "out"
        out.mkdir()
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", manifest.name, "--version", "1.0"),
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
        return archive.rename(model_store / archive.name)


def model_config(serving: ServingConfig, frontend: Frontend = Frontend()) -> str:
    """The archive's ``model-config.yaml``: TorchServe's keys, and ours under ``skipserve``.

    Only a single worker's requests are pipelined: of several, each would take as many as it can
    and let them wait while another is idle.

    Args:
        serving: The settings.
        frontend: What will read them.
    """
    delay_ms = (
        UNASKED_DELAY_MS if serving.max_batch_delay_ms is None else serving.max_batch_delay_ms
    )
    pipelined = frontend.pipelines and serving.pipelined and serving.workers == 1
    values: dict[str, Any] = {
        "minWorkers": serving.workers,
        "maxWorkers": serving.workers,
        "asyncCommunication": pipelined,
        # The worker gathers its own batches then.
        "batchSize": 1 if pipelined else serving.batch_size,
        # Rounded up, and never 0, which TorchServe takes for 100 ms.
        "maxBatchDelay": max(1, math.ceil(delay_ms / frontend.delay_unit_ms)),
        "jobQueueSize": serving.queue_size,
        "responseTimeout": serving.response_timeout_s,
        "startupTimeout": 300,
        "skipserve": serving.model_dump(mode="json"),
    }
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def unpack(
    archive: Path,
    store: Path,
    overrides: dict[str, Any],
    frontend: Frontend = Frontend(),
) -> tuple[Artifact, ServingConfig]:
    """Unpack an archive into ``store`` for one server run, with settings overridden.

    The artifact in it is checked against its hashes; the handler is code that will run, so serve
    only archives you trust.

    Args:
        archive: A ``.mar`` file.
        store: Gets a folder with its content.
        overrides: Settings that replace those in it.
        frontend: What will open it.

    Returns:
        The artifact and the settings in force.

    Raises:
        ArtifactError: If it is no archive of ours, or its artifact is damaged, or holds no file
            for the settings.
        ConfigError: If an override is out of range.
        LaunchError: If CUDA was asked for and is not there, or the machine is full or forbids it.
    """
    directory = store / archive.stem
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(directory)
        values = yaml.safe_load((directory / MODEL_CONFIG).read_text())["skipserve"]
        values = {**values, **overrides}
    except (*DAMAGE, OSError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError) and machines_fault(error):
            raise LaunchError(
                f"{archive} cannot be unpacked into {store}: {error.strerror} "
                f"({error.filename or archive.name}); make room or give this user access, or set "
                "TMPDIR to another folder"
            ) from None
        if isinstance(error, FileNotFoundError) and not archive.is_file():
            raise ArtifactError(f"{archive} is not there; make it with `skipserve build`") from None
        raise ArtifactError(
            f"{archive} is not an archive of skipserve or is damaged ({error!r}); "
            "make it again with `skipserve build` or `skipserve package`"
        ) from None
    serving = parse(ServingConfig, values, f"{archive.name}: serving")
    (directory / MODEL_CONFIG).write_text(model_config(serving, frontend))
    artifact = open_artifact(directory)
    if artifact.manifest.name != archive.stem:
        raise ArtifactError(
            f"{archive} holds the model {artifact.manifest.name}; its file must be named "
            f"{artifact.manifest.name}.mar"
        )
    plan(artifact, serving.backend, serving.precision, serving.provider)
    return artifact, serving
