"""Atomic writes of directories and files, hashes of files, and what damage to them raises."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skipserve.errors import ConfigError

_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}

# Exceptions of zipfile for damaged archives, which .npz files are too, and of what reads others.
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


def damage(error: Exception) -> str:
    """What an error about the content of a file says, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError) and error.args:
        said = str(error.args[0])  # str() of it would be quoted
    return (said or type(error).__name__).splitlines()[0]


def machines_fault(error: OSError) -> bool:
    """Whether an error is about the machine: full, broken or without permission.

    The files themselves may be intact then.
    """
    return error.errno in _MACHINE


@contextmanager
def replacing_directory(directory: Path, marker: str) -> Iterator[Path]:
    """Yield a fresh directory that replaces ``directory`` if the block succeeds.

    On an exception the old directory is untouched and the new one gone. A reader sees the old
    or the new content, never a mixture; between the two renames it may briefly see neither.

    Args:
        directory: What to replace.
        marker: A file that an older one of ours holds; anything else is not ours to replace.

    Raises:
        ConfigError: If the directory holds something, but not the marker.
    """
    if directory.exists() and not (directory / marker).is_file() and any(directory.iterdir()):
        raise ConfigError(
            f"{directory} holds other files and no {marker}; it would be replaced as a whole: "
            "name a directory that is empty, new, or was made by this command"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and beside its target so that the rename stays on one file system.
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    old = fresh.with_name(fresh.name + ".old")
    try:
        yield fresh
        fresh.chmod(0o755)
        if directory.exists():
            directory.rename(old)
        try:
            fresh.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing_file(file: Path) -> Iterator[Path]:
    """Yield the path of a new file that replaces ``file`` if the block succeeds.

    Readers see the old content or the new, whoever else writes it; on an exception the old content
    stays.

    Args:
        file: What to replace; the new one stands beside it, hidden, with the same ending.
    """
    # Not by tempfile, whose files only their owner may read.
    fresh = file.with_name(f".{secrets.token_hex(4)}.{file.name}")
    try:
        yield fresh
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def replace_text(file: Path, text: str) -> None:
    """Write a text as :func:`replacing_file` does."""
    with replacing_file(file) as fresh, fresh.open("x") as stream:
        stream.write(text)


@contextmanager
def held(directory: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a directory against everybody else who holds it, to read and write it in one step.

    Where a file system locks no directories, nobody is kept out.

    Args:
        directory: What to hold; it must be there.
        on_wait: Called once if somebody else holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
