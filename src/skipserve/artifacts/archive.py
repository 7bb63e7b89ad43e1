"""Archives: an artifact, a handler and serving settings in one `.mar` file.

TorchServe loads the file as it is; every other host reads the artifact and the settings in it.
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from skipserve.artifacts.archive_names import (
    ABOUT,
    key_of,
    model_of,
    split_key,
    version_of_content,
)
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.entries import require_harmless
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, LaunchError, listed, suggestion
from skipserve.files import DAMAGE, damage, machines_fault
from skipserve.runtime.planning import plan
from skipserve.schema import parse

logger = logging.getLogger(__name__)

# TorchServe reads it as YAML, which includes JSON; our settings stand under the key OURS.
MODEL_CONFIG = "model-config.yaml"
OURS = "skipserve"


@dataclass(frozen=True)
class Unpacked:
    """The content of an archive, unpacked into a folder.

    Attributes:
        artifact: Its hashes were checked.
        serving: The settings in force.
        version: The version for clients.
    """

    artifact: Artifact
    serving: ServingConfig
    version: str = "1"

    @property
    def directory(self) -> Path:
        """The folder."""
        return self.artifact.directory

    @property
    def name(self) -> str:
        """The key it is served under: the name, or ``NAME@N`` beside another version."""
        return self.artifact.manifest.name

    @property
    def model(self) -> str:
        """The model's own name."""
        return split_key(self.name)[0]


def unpack(archive: Path, store: Path, overrides: dict[str, Any], beside: bool = False) -> Unpacked:
    """Unpack an archive into ``store`` for one server run, with settings overridden.

    The artifact in it is checked against its hashes, and every file against the archive's checksum;
    the handler is code that TorchServe will run, so serve only archives you trust.

    Args:
        archive: A ``.mar`` file.
        store: Gets a folder with its content.
        overrides: Settings that replace those in it.
        beside: Whether another version of the model answers for its name.

    Raises:
        ArtifactError: If it is no archive of ours, or its artifact is damaged, or holds no file
            for the settings.
        ConfigError: If an override is out of range.
        LaunchError: If CUDA was asked for and is not there, or the machine is full or forbids it.
    """
    directory, version, values = _extracted(archive, store, beside)
    _require_known(archive, directory, values)
    serving = parse(ServingConfig, {**values, **overrides}, f"{archive.name}: serving")
    if "overload_risk" in overrides and serving.risk is None:
        logger.warning(
            "%s: --overload-risk has no effect: [serving] of its build file names no risk",
            model_of(archive),
        )
    _keep(directory, serving)
    with _said_of(archive, directory):
        unpacked = _opened(directory, serving, version)
        plan(unpacked.artifact, serving.backend, serving.precision, serving.provider)
    _require_name(archive, unpacked)
    return unpacked


def unpack_all(
    archives: Sequence[Path], store: Path, overrides: dict[str, Any]
) -> Iterable[tuple[Path, Unpacked]]:
    """Unpack archives one after another, as :func:`unpack` does each.

    The first of a model answers for its name; others are versions beside it, each of them once.
    """
    found: dict[str, list[str]] = {}
    for archive in archives:
        versions = found.setdefault(model_of(archive), [])
        model = unpack(archive, store, overrides, beside=bool(versions))
        if model.version in versions:  # requested by number, and also in force
            shutil.rmtree(model.directory)
            continue
        versions.append(model.version)
        yield archive, model


def verify(archive: Path, scratch: Path) -> None:
    """Check every file of an archive, and that the model has the name of the archive.

    Args:
        archive: A ``.mar`` file.
        scratch: Gets a folder with its content.

    Raises:
        ArtifactError: Saying what is wrong with it.
        LaunchError: If the machine is full or forbids it.
    """
    directory, version, values = _extracted(archive, scratch, False)
    _require_known(archive, directory, values)
    serving = parse(ServingConfig, values, f"{archive.name}: serving")
    with _said_of(archive, directory):
        unpacked = _opened(directory, serving, version)
    _require_name(archive, unpacked)


def opened(directory: Path) -> Unpacked:
    """The content of a folder that :func:`unpack` wrote, for a process that serves it.

    Raises:
        ArtifactError: If it was changed meanwhile.
    """
    serving = parse(ServingConfig, _settings(directory), f"{directory.name}: serving")
    return _opened(directory, serving, version_of_content((directory / ABOUT).read_bytes()))


def _extracted(archive: Path, store: Path, beside: bool) -> tuple[Path, int, dict[str, Any]]:
    """The folder of an unpacked archive, its version and its serving settings."""
    directory = None
    try:
        with zipfile.ZipFile(archive) as content:
            require_harmless(content, archive)
            name, version = model_of(archive), version_of_content(content.read(ABOUT))
            directory = store / (key_of(name, version) if beside else name)
            content.extractall(directory)
        return directory, version, {**_settings(directory)}
    except (*DAMAGE, OSError, LookupError, TypeError, ValueError) as error:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError) and machines_fault(error):
            raise LaunchError(
                f"{archive} cannot be unpacked into {store}: {error.strerror} "
                f"({error.filename or archive.name}); make room or give this user access, or set "
                "TMPDIR to another folder"
            ) from None
        if isinstance(error, FileNotFoundError) and not archive.is_file():
            have = map(str, archive.parent.glob("*.mar"))
            hint = suggestion(str(archive), have, "make it with `skipserve build`")
            raise ArtifactError(f"{archive} is not there; {hint}") from None
        raise ArtifactError(
            f"{archive} is not an archive of this skipserve or is damaged ({damage(error)}); "
            "make it again with `skipserve build` or `skipserve package`"
        ) from None


def _require_known(archive: Path, directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse settings that another skipserve wrote; the folder of the archive goes then.

    Raises:
        ArtifactError: Naming them.
    """
    unknown = [f"{key!r:.40}" for key in settings if key not in ServingConfig.model_fields]
    if unknown:
        shutil.rmtree(directory, ignore_errors=True)
        raise ArtifactError(
            f"{archive} was made by another skipserve: it has settings that are not known here "
            f"({listed(unknown)}); build it again with "
            f"`skipserve build export/{model_of(archive)}.toml`"
        )


def _opened(directory: Path, serving: ServingConfig, version: int) -> Unpacked:
    artifact = open_artifact(directory)
    manifest = artifact.manifest
    if directory.name == key_of(manifest.name, version):
        renamed = manifest.model_copy(update={"name": directory.name})
        artifact = replace(artifact, manifest=renamed)
    return Unpacked(artifact, serving, str(version))


@contextmanager
def _said_of(archive: Path, directory: Path) -> Iterator[None]:
    """Name the archive in errors about its folder, which is gone when they are read."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(directory), str(archive))) from None


def _require_name(archive: Path, unpacked: Unpacked) -> None:
    if unpacked.model != model_of(archive):
        raise ArtifactError(
            f"{archive} holds the model {unpacked.model}; its file must be named "
            f"{unpacked.model}.mar"
        )
    if model_of(archive) != archive.stem and archive.stem != unpacked.version:
        raise ArtifactError(
            f"{archive} holds version {unpacked.version} of {unpacked.model}, not {archive.stem}; "
            f"its file must be named {unpacked.version}.mar"
        )


def _keep(directory: Path, serving: ServingConfig) -> None:
    """Write the serving settings to the file that :func:`opened` reads."""
    file = directory / MODEL_CONFIG
    values = {**msgspec.json.decode(file.read_bytes()), OURS: serving.model_dump(mode="json")}
    file.write_bytes(msgspec.json.encode(values))


def _settings(directory: Path) -> dict[str, Any]:
    """The serving settings of an unpacked archive."""
    values: dict[str, Any] = msgspec.json.decode((directory / MODEL_CONFIG).read_bytes())[OURS]
    return values
