"""Versions of a model in a store: the current archive, and the last few that were current before.

    STORE/NAME.mar               the current one
    STORE/NAME.versions/N.mar    others, by version

An archive says itself which version it is, where TorchServe looks for it, too. Nothing is copied:
archives are linked and renamed, so that there is a current one, whole, at every moment.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.archive import DAMAGE, unpack
from skipserve.artifacts.archive_names import ABOUT, FOLDER, version_of_content
from skipserve.errors import ArtifactError, ConfigError, SkipserveError

# Kept beside the current one.
KEPT = 3


@dataclass(frozen=True)
class Version:
    """One archive of a model.

    Attributes:
        number: Of the version, from 1.
        archive: Its file.
        current: Whether it is the one that is served by the model's bare name.
    """

    number: int
    archive: Path
    current: bool


def version_in(archive: Path) -> int:
    """The version that an archive says it is; those of before said 1.0.

    Raises:
        ArtifactError: If it is no archive.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            return version_of_content(content.read(ABOUT))
    except (*DAMAGE, OSError, LookupError) as error:
        raise ArtifactError(
            f"{archive} is not an archive of this skipserve or is damaged ({error!r}); "
            "make it again with `skipserve build`, or go back with `skipserve rollback`"
        ) from None


def versions(store: Path, name: str) -> list[Version]:
    """All versions of a model, newest first; a current archive that is damaged has the number 0.

    Raises:
        ConfigError: If there is none.
    """
    current = store / f"{name}.mar"
    found = [
        Version(int(file.stem), file, False)
        for file in (store / f"{name}{FOLDER}").glob("*.mar")
        if file.stem.isdecimal()
    ]
    if current.is_file():
        try:
            number = version_in(current)
        except ArtifactError:
            number = 0
        found = [one for one in found if one.number != number]
        found.append(Version(number, current, True))
    if not found:
        raise ConfigError(f"{store} holds no {name}.mar; make it with `skipserve build`")
    return sorted(found, key=lambda one: -one.number)


def find(store: Path, name: str, number: int) -> Path:
    """The archive of one version.

    Raises:
        ConfigError: If the store does not have it.
    """
    have = versions(store, name)
    for one in have:
        if one.number == number:
            return one.archive
    raise ConfigError(
        f"{store} has no version {number} of {name}, only "
        f"{', '.join(str(one.number) for one in have)}"
    )


def next_number(store: Path, name: str) -> int:
    """What the next archive of a model shall be called."""
    try:
        return versions(store, name)[0].number + 1
    except ConfigError:
        return 1


def put(fresh: Path, store: Path, name: str) -> Path:
    """Make an archive the current one; the one before is kept, the oldest of many is not."""
    current = store / f"{name}.mar"
    _keep(current)
    fresh.replace(current)
    kept = [one for one in versions(store, name) if not one.current]
    for old in kept[KEPT:]:
        old.archive.unlink(missing_ok=True)
    return current


def roll_back(store: Path, name: str, to: int | None = None) -> tuple[int, int]:
    """Make another version the current one, once its hashes were checked.

    Args:
        store: Folder of archives.
        name: Of the model.
        to: A version; by default the newest that is older than the current one.

    Returns:
        The version that was current, and the one that is.

    Raises:
        ConfigError: If there is no such version.
        ArtifactError: If it is damaged; the current one stays then.
    """
    have = versions(store, name)
    was = next((one.number for one in have if one.current), 0)
    if to is None:
        older = [one for one in have if not one.current and (one.number < was or not was)]
        if not older:
            raise ConfigError(f"{store} has no version of {name} before {was}, the current one")
        to = older[0].number
    archive = find(store, name, to)
    if to == was:
        raise ConfigError(f"version {to} of {name} is the current one already")
    with tempfile.TemporaryDirectory(prefix="skipserve-version.") as scratch:
        unpack(archive, Path(scratch), {})
    current = store / f"{name}.mar"
    if was:
        _keep(current)
    # The other name goes last: whatever ends this, both archives are there.
    fresh = current.with_name(f".{current.name}.{os.getpid()}")
    _link(archive, fresh)
    fresh.replace(current)
    archive.unlink(missing_ok=True)
    return was, to


def _keep(current: Path) -> None:
    try:
        number = version_in(current)
    except SkipserveError:  # there is none, or nothing worth to go back to
        return
    folder = current.with_name(f"{current.stem}{FOLDER}")
    folder.mkdir(exist_ok=True)
    _link(current, folder / f"{number}.mar")


def _link(file: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copy2(file, name)

