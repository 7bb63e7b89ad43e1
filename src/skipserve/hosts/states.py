"""Folders of earned state, which outlive the run that serves them where possible."""

from __future__ import annotations

import logging
from pathlib import Path

from skipserve.artifacts.archive import Unpacked
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.errors import LaunchError
from skipserve.hosts.instance import Instance
from skipserve.safety.standing import STATE_VARIABLE, evidence_folder

KEPT = "kept"

logger = logging.getLogger(__name__)


def keep_state(instance: Instance, archive: Path, model: Unpacked) -> Path:
    """Make the folder of a model's state, and link it where the workers look.

    Where it cannot be written to, the state is in the run's own directory, and gone with it.

    Args:
        instance: The run.
        archive: Of the model.
        model: As it was unpacked.

    Returns:
        The folder.

    Raises:
        OSError: If not even that can be made.
    """
    link = instance.evidence / model.name
    router = model.artifact.manifest.router
    folder = evidence_folder(archive)
    if router is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
        except OSError as error:
            if router.certificate != "offline":
                logger.warning(
                    "what %s earns is forgotten when this service ends: %s cannot be written (%s); "
                    "serve with %s naming a folder that stays and can be written to",
                    *(model.name, folder, error.strerror, STATE_VARIABLE),
                )
            folder = instance.directory / KEPT / model.name
            folder.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder)
    fresh.replace(link)
    return folder


def find_state(directory: Path, model: str) -> tuple[Artifact, Path]:
    """The artifact and the state of a model that a run serves.

    Args:
        directory: Of the run.
        model: What it is served as.

    Raises:
        LaunchError: If the run has just ended, or is just being reloaded.
    """
    # A reload unpacks into a folder of its own, and removes the one before.
    folders = [store / model for store in directory.glob("store*") if (store / model).is_dir()]
    link = directory / "evidence" / model
    if not folders or not link.exists():
        raise LaunchError(f"{model} is just being opened or closed; ask again in a moment")
    newest = max(folders, key=lambda folder: folder.stat().st_mtime_ns)
    return open_artifact(newest), link.resolve()
