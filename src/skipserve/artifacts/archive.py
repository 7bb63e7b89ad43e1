"""Archives: an artifact, the handler and its serving settings in one `.mar` file.

It is the file that TorchServe loads; every other host reads the artifact and the settings in it.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, LaunchError
from skipserve.files import machines_fault
from skipserve.runtime.engine import plan
from skipserve.schema import parse

# TorchServe reads it as YAML, of which JSON is a part; our settings stand in it under OURS.
MODEL_CONFIG = "model-config.yaml"
OURS = "skipserve"
# What zipfile raises, by where the damage is.
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Unpacked:
    """What an archive holds, in a folder.

    Attributes:
        artifact: Its hashes were checked.
        serving: The settings in force.
    """

    artifact: Artifact
    serving: ServingConfig

    @property
    def directory(self) -> Path:
        """The folder."""
        return self.artifact.directory

    @property
    def name(self) -> str:
        """Of the model."""
        return self.artifact.manifest.name


def unpack(archive: Path, store: Path, overrides: dict[str, Any]) -> Unpacked:
    """Unpack an archive into ``store`` for one server run, with settings overridden.

    The artifact in it is checked against its hashes; the handler is code that TorchServe will run,
    so serve only archives you trust.

    Args:
        archive: A ``.mar`` file.
        store: Gets a folder with its content.
        overrides: Settings that replace those in it.

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
        values = {**_settings(directory), **overrides}
    except (*DAMAGE, OSError, LookupError, TypeError, ValueError) as error:
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
            f"{archive} is not an archive of this skipserve or is damaged ({error!r}); "
            "make it again with `skipserve build` or `skipserve package`"
        ) from None
    serving = parse(ServingConfig, values, f"{archive.name}: serving")
    _keep(directory, serving)
    try:
        artifact = open_artifact(directory)
        plan(artifact, serving.backend, serving.precision, serving.provider)
    except ArtifactError as error:
        # The folder is gone when somebody reads this.
        raise ArtifactError(str(error).replace(str(directory), str(archive))) from None
    unpacked = Unpacked(artifact, serving)
    if unpacked.name != archive.stem:
        raise ArtifactError(
            f"{archive} holds the model {unpacked.name}; its file must be named {unpacked.name}.mar"
        )
    return unpacked


def opened(directory: Path) -> Unpacked:
    """What :func:`unpack` has put into a folder, for a process that serves it.

    Raises:
        ArtifactError: If it was changed meanwhile.
    """
    serving = parse(ServingConfig, _settings(directory), f"{directory.name}: serving")
    return Unpacked(open_artifact(directory), serving)


def _keep(directory: Path, serving: ServingConfig) -> None:
    """Write the settings in force where :func:`opened` finds them."""
    file = directory / MODEL_CONFIG
    values = {**msgspec.json.decode(file.read_bytes()), OURS: serving.model_dump(mode="json")}
    file.write_bytes(msgspec.json.encode(values))


def _settings(directory: Path) -> dict[str, Any]:
    """Our part of an unpacked archive's configuration."""
    values: dict[str, Any] = msgspec.json.decode((directory / MODEL_CONFIG).read_bytes())[OURS]
    return values
