"""What takes long to make is made by one of the workers that run the tests, not by each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One worker at a time is in here, for a folder that all of them know."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def shared(factory: pytest.TempPathFactory, name: str) -> Path:
    """The path of a folder that is the same for all workers; it may not be there yet.

    Args:
        factory: Of temporary folders; xdist's workers have theirs side by side.
        name: Of the folder.
    """
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"


def made_once(
    factory: pytest.TempPathFactory,
    name: str,
    make: Callable[[Path], object],
    *,
    copied: bool = True,
) -> Path:
    """A folder that the first worker to want it makes; each worker gets a copy of its own.

    Args:
        factory: Of temporary folders.
        name: Of the folder.
        make: Fills an empty folder.
        copied: Whether there are copies; what is only read needs none.
    """
    made = shared(factory, name)
    with alone(made):
        if not made.is_dir():
            fresh = made.with_suffix(".fresh")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            make(fresh)
            fresh.rename(made)
    if not copied:
        return made
    own = factory.mktemp(name)
    shutil.copytree(made, own, symlinks=True, dirs_exist_ok=True)
    return own
