"""Versions of a model in a store: the version in force and a few earlier ones.

    STORE/NAME.mar               the one in force
    STORE/NAME.versions/N.mar    others, by version

An archive says itself which version it is, where TorchServe looks for it, too. Archives are linked
and renamed, so that one is in force, whole, at every moment.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.archive import verify
from skipserve.artifacts.archive_names import ABOUT, others_of, split_key, version_of_content
from skipserve.errors import ArtifactError, ConfigError, SkipserveError, listed, nearest
from skipserve.files import DAMAGE, damage, held

# Kept beside the one in force.
KEPT = 5
# Digits of a version number.
LONGEST = 18


@dataclass(frozen=True)
class Version:
    """One archive of a model.

    Attributes:
        number: Of the version, from 1; 0 for an archive too damaged to say.
        archive: Its file.
        in_force: Whether it is the one that answers for the model's name.
    """

    number: int
    archive: Path
    in_force: bool


def version_in(archive: Path) -> int:
    """The version number in an archive.

    Raises:
        ArtifactError: If it is no archive.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            return version_of_content(content.read(ABOUT))
    except (*DAMAGE, OSError, LookupError, ValueError) as error:
        raise ArtifactError(
            f"{archive} is not an archive of this skipserve or is damaged ({damage(error)}); "
            "make it again with `skipserve build`, or go back with `skipserve rollback`"
        ) from None


def versions_of(store: Path, name: str) -> list[Version]:
    """All versions of a model, newest first; a damaged version in force comes last.

    Raises:
        ConfigError: If there is none, or no such folder.
    """
    current = store / f"{name}.mar"
    found = [
        Version(int(file.stem), file, False)
        for file in others_of(store, name).glob("*.mar")
        if file.stem.isdecimal()
    ]
    if current.is_file():
        try:
            number = version_in(current)
        except ArtifactError:
            number = 0
        # Between the two steps of a move, the archive exists twice.
        found = [one for one in found if one.number != number]
        found.append(Version(number, current, True))
    if not found:
        raise _no_archive(store, name)
    return sorted(found, key=lambda one: -one.number)


def find_version(store: Path, name: str, number: int) -> Version:
    """One version of a model.

    Raises:
        ConfigError: If the store does not have it.
    """
    have = versions_of(store, name)
    for one in have:
        if one.number == number:
            return one
    raise ConfigError(
        f"{store} has no version {number} of {name}, only "
        f"{', '.join(str(one.number) for one in have if one.number)}"
    )


def archives_in(store: Path, names: Sequence[str] = ()) -> list[Path]:
    """Archives of a store: those named as NAME or NAME@N, or all that are in force.

    Args:
        store: Folder of ``.mar`` files.
        names: ``NAME`` or ``NAME@VERSION``.

    Raises:
        ConfigError: If there is none, or one is missing.
    """
    _require_store(store)
    found = {file.stem: file for file in sorted(store.glob("*.mar"))}
    if not found:
        raise ConfigError(f"{store} holds no .mar; make one with `skipserve build`")
    if not names:
        return list(found.values())
    archives = []
    for one in names:
        name, version = split_key(one)
        if version:
            if not (version.isdecimal() and len(version) <= LONGEST):
                raise ConfigError(f"{one}: expected NAME or NAME@VERSION, such as {name}@1")
            archives.append(find_version(store, name, int(version)).archive)
        elif name in found:
            archives.append(found[name])
        else:
            raise _no_archive(store, name)
    return archives


def _require_store(store: Path) -> None:
    if not store.exists():
        raise ConfigError(
            f"{store} is not there; name the folder of archives (.mar) that `skipserve build` makes"
        )
    if not store.is_dir():
        raise ConfigError(
            f"{store} is a file, expected the folder of archives; name {store.parent}"
        )


def _no_archive(store: Path, name: str) -> ConfigError:
    _require_store(store)
    have = sorted(file.stem for file in store.glob("*.mar"))
    near = nearest(name, have)
    make = f"`skipserve build export/{name}.toml` makes it"
    if near is not None:
        can_be_made = Path(f"export/{name}.toml").is_file()
        hint = f"did you mean {near!r}?" + (f" {make}" if can_be_made else "")
    else:
        hint = f"there are {listed(have)}; {make}" if have else make
    return ConfigError(f"{store} holds no {name}.mar; {hint}")


def next_number(store: Path, name: str) -> int:
    """The version number for the next archive of a model."""
    try:
        return versions_of(store, name)[0].number + 1
    except ConfigError:
        return 1


def put(fresh: Path, store: Path, name: str) -> Path:
    """Put an archive in force, keep the one before, and remove the oldest beyond a limit.

    One that holds the same as the one in force is no new version: that one stays.
    """
    current = store / f"{name}.mar"
    with held(store):
        if _content(fresh) == _content(current):
            return current
        _keep(current)
        fresh.replace(current)
        kept = [one for one in versions_of(store, name) if not one.in_force]
        for old in kept[KEPT:]:
            old.archive.unlink(missing_ok=True)
    return current


def roll_back(store: Path, name: str, to: int | None = None) -> tuple[int, int]:
    """Put another version in force after checking every file in it.

    Args:
        store: Folder of archives.
        name: Of the model.
        to: A version; by default the newest that is older than the one in force.

    Returns:
        The version that was in force (0: it is damaged, or there was none), and the one that is.

    Raises:
        ConfigError: If there is no such version.
        ArtifactError: If it is damaged; what is in force stays then.
    """
    have = versions_of(store, name)
    was = next((one.number for one in have if one.in_force), 0)
    if to is None:
        older = [one for one in have if not one.in_force and (one.number < was or not was)]
        if not older:
            raise ConfigError(
                f"{store} has no version of {name} before {was}, which is in force; "
                f"see `skipserve versions {name}`, and name one that is there"
            )
        to = older[0].number
    if to == was:
        raise ConfigError(
            f"version {to} of {name} is in force already; `skipserve reload` makes a running "
            "service open it"
        )
    archive = find_version(store, name, to).archive
    with tempfile.TemporaryDirectory(prefix="skipserve-version.") as scratch:
        verify(archive, Path(scratch))
    current = store / f"{name}.mar"
    with held(store):
        _keep(current)
        # The other name is removed last, so that an interruption loses no archive.
        fresh = current.with_name(f".{current.name}.{os.getpid()}")
        _link(archive, fresh)
        fresh.replace(current)
        archive.unlink(missing_ok=True)
    return was, to


def _keep(current: Path) -> None:
    try:
        number = version_in(current)
    except SkipserveError:  # no archive, or a damaged one that no rollback would want
        return
    folder = others_of(current.parent, current.stem)
    folder.mkdir(exist_ok=True)
    _link(current, folder / f"{number}.mar")


def _link(file: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copy2(file, name)


def _content(archive: Path) -> dict[str, tuple[int, int]] | None:
    """Length and checksum of each file except the description, which holds the date."""
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
    except (*DAMAGE, OSError):
        return None
    return {one.filename: (one.file_size, one.CRC) for one in entries if one.filename != ABOUT}
