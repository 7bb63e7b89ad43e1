"""Certifying a model in its archive: unpack it, certify it, replace the archive at once.

On a serving machine there may be only archives, as in the container image.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.certificates_file import (
    CERTIFICATES,
    certificates_in,
    json_of,
    read_certificates,
)
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, ConfigError
from skipserve.files import held


@contextmanager
def unpacked(archive: Path, overrides: dict[str, Any]) -> Iterator[tuple[Artifact, ServingConfig]]:
    """An archive's artifact to certify, with the settings it serves with.

    If the block ends well, the certificates that were added to the artifact are in the archive,
    beside those that others have put there meanwhile.

    Args:
        archive: A ``.mar`` file of ours, in a folder that can be written to.
        overrides: Serving settings that replace those in it.

    Raises:
        ArtifactError: If it is no archive of ours, is damaged, or was replaced meanwhile by one
            with another manifest or other candidates.
        ConfigError: If its folder cannot be written to, which is looked at first.
        LaunchError: If CUDA was asked for and is not there.
    """
    if archive.is_file():
        _require_writable(archive)
    with tempfile.TemporaryDirectory(prefix="skipserve-certify.") as scratch:
        found = unpack(archive, Path(scratch), overrides)
        yield found.artifact, found.serving
        news = read_certificates(found.directory).since(found.artifact.certificates)
        _put_back(found.artifact, news, archive)


def _require_writable(archive: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=archive.parent).close()
    except OSError as error:
        raise ConfigError(
            f"{archive.parent} cannot be written to ({error.strerror}), and the certificates "
            "belong into the archive: mount it writable, or certify a copy"
        ) from None


def _put_back(artifact: Artifact, news: Certificates, archive: Path) -> None:
    router = artifact.manifest.router
    assert router is not None  # or nothing would have been certified
    fresh = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}")
    try:
        with (
            held(archive.parent),
            zipfile.ZipFile(archive) as old,
            zipfile.ZipFile(fresh, "w") as new,
        ):
            if old.read(MANIFEST) != (artifact.directory / MANIFEST).read_bytes():
                raise ArtifactError(
                    f"{archive} was replaced by another one meanwhile; certify that one"
                )
            there = Certificates()
            for item in old.infolist():
                if item.filename == CERTIFICATES:
                    there = certificates_in(old.read(item), f"{archive}, {CERTIFICATES}")
                if item.filename != CERTIFICATES:
                    with old.open(item) as source, new.open(item, "w") as target:
                        shutil.copyfileobj(source, target)
            made = json_of(there.replacing(news, router))
            new.writestr(CERTIFICATES, made, zipfile.ZIP_DEFLATED)
            new.close()
            shutil.copymode(archive, fresh)
            fresh.replace(archive)
    except OSError as error:
        raise ConfigError(f"{archive} cannot be written: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
