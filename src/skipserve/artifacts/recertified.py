"""Certifying a model in its archive: unpack it, certify it, replace the archive at once.

On a serving machine there may be only archives, as in the container image.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.certificates import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, ConfigError


@contextmanager
def unpacked(archive: Path, overrides: dict[str, Any]) -> Iterator[tuple[Artifact, ServingConfig]]:
    """An archive's artifact to certify, with the settings it serves with.

    If the block ends well, the certificates that the artifact has then are in the archive.

    Args:
        archive: A ``.mar`` file of ours, in a folder that can be written to.
        overrides: Serving settings that replace those in it.

    Raises:
        ArtifactError: If it is no archive of ours, is damaged, or was replaced meanwhile.
        ConfigError: If its folder cannot be written to, which is looked at first.
        LaunchError: If CUDA was asked for and is not there.
    """
    if archive.is_file():
        _require_writable(archive)
    with tempfile.TemporaryDirectory(prefix="skipserve-certify.") as scratch:
        found = unpack(archive, Path(scratch), overrides)
        yield found.artifact, found.serving
        _put_back(found.directory, archive)


def _require_writable(archive: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=archive.parent).close()
    except OSError as error:
        raise ConfigError(
            f"{archive.parent} cannot be written to ({error.strerror}), and the certificates "
            "belong into the archive: mount it writable, or certify a copy"
        ) from None


def _put_back(artifact: Path, archive: Path) -> None:
    fresh = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(fresh, "w") as new:
            if old.read(MANIFEST) != (artifact / MANIFEST).read_bytes():
                raise ArtifactError(
                    f"{archive} was replaced by another one meanwhile; certify that one"
                )
            for item in old.infolist():
                if item.filename != CERTIFICATES:
                    with old.open(item) as source, new.open(item, "w") as target:
                        shutil.copyfileobj(source, target)
            new.write(artifact / CERTIFICATES, CERTIFICATES, zipfile.ZIP_DEFLATED)
        shutil.copymode(archive, fresh)
        fresh.replace(archive)
    except OSError as error:
        raise ConfigError(f"{archive} cannot be written: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
