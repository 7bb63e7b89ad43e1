"""The directory of one running service: its place, its owner and its lock.

The launcher holds a lock on the directory for as long as it lives, and the kernel gives it back
however it dies: a directory of ours that nobody holds is a leftover. (systemd-tmpfiles, too, leaves
alone what is locked.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skipserve.address import LOOPBACK, url_of
from skipserve.errors import LaunchError
from skipserve.hosts.pulse import lock

PREFIX = "skipserve."
ABOUT = "service.json"
VARIABLES = ("TMPDIR", "TEMP", "TMP")
FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a directory of our own is made there
# A Unix socket's path has 107 bytes. The longest of ours is DIRECTORY/tmp/management.sock.
_OURS = len(f"/{PREFIX}12345678/tmp/management.sock")
LONGEST = 107 - _OURS
# Java's properties are Latin-1, its class path is split at colons, its URLs have their own marks.
_PLAIN = re.compile(r"[A-Za-z0-9/._+=@,-]*")

logger = logging.getLogger(__name__)


class _About(msgspec.Struct):
    metrics_port: int
    metrics_url: str


class Directory:
    """A new directory, locked until :meth:`remove`; stale ones are removed first.

    Args:
        metrics_port: By which `skipserve router` finds it.
        host: Address that the metrics port listens on.

    Attributes:
        path: An absolute path, short and plain enough for sockets and Java.

    Raises:
        LaunchError: If no place can be used, naming the variable to set.
    """

    def __init__(self, metrics_port: int, host: str = LOOPBACK) -> None:
        # First, because leftovers may fill the disk.
        for _, place in _places():
            for left in remove_leftovers(place):
                logger.warning("removed %s, left by a service that was killed", left)
        about = _About(metrics_port, url_of(host, metrics_port))
        self.path, self._descriptor = _make(msgspec.json.encode(about))
        self._files: list[Path] = []

    def remember(self, *within: Path) -> None:
        """Remember the present folders, and the content of these, as what must stay."""
        self._files = [entry for entry in self.path.iterdir() if entry.is_dir()]
        for folder in within:
            self._files += folder.rglob("*")

    def forget(self, *folders: Path) -> None:
        """Forget folders that had to stay."""
        gone = [one for one in self._files if any(map(one.is_relative_to, folders))]
        self._files = [one for one in self._files if one not in gone]

    def is_whole(self) -> bool:
        """Whether everything remembered still exists."""
        return all(os.path.lexists(file) for file in self._files)

    def remove(self) -> None:
        """Remove the directory and its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def find(metrics_port: int) -> Path | None:
    """The directory of this user's service on a port."""
    for _, place in _places():
        for directory in _ours(place):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                about = _about(directory)
                if about.metrics_port == metrics_port and is_held(directory):
                    return directory
    return None


def metrics_url(directory: Path) -> str:
    """Root of the metrics port of a service, for a client on this machine.

    Args:
        directory: Of the service, as :func:`require` gives it.

    Raises:
        LaunchError: If the service has ended.
    """
    try:
        return _about(directory).metrics_url
    except (OSError, msgspec.MsgspecError):
        raise LaunchError(f"the service in {directory} has ended") from None


def require(metrics_port: int) -> Path:
    """The directory of the service on a port that this user runs here.

    Raises:
        LaunchError: If there is none.
    """
    if directory := find(metrics_port):
        return directory
    raise no_service(metrics_port)


def no_service(metrics_port: int) -> LaunchError:
    """The error where no service runs on the port, or it is still starting."""
    return LaunchError(
        f"no service of this user has its metrics on port {metrics_port} here; run this as the "
        "user who runs it, with the same TMPDIR, and --metrics-port if it has another port"
    )


def is_held(directory: Path) -> bool:
    """Whether the launcher of a directory is alive."""
    with _open(directory) as descriptor:
        return not lock(descriptor, shared=True)


def remove_leftovers(place: Path) -> list[Path]:
    """Remove directories whose launcher has ended; returns them."""
    removed = []
    for directory in _ours(place):
        with contextlib.suppress(OSError), _open(directory) as descriptor:
            if (directory / ABOUT).is_file() and lock(descriptor):
                shutil.rmtree(directory)
                removed.append(directory)
    return removed


def _about(directory: Path) -> _About:
    return msgspec.json.decode((directory / ABOUT).read_bytes(), type=_About)


def _make(about: bytes) -> tuple[Path, int]:
    refused: list[str] = []
    for variable, place in _places():
        problem = _problem(place)
        if problem is None:
            try:
                made = _locked(Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)), about)
            except OSError as error:
                problem = error.strerror or str(error)
            else:
                if refused:
                    logger.warning("%s; the service's files are in %s", "; ".join(refused), place)
                return made
        refused.append(f"{variable}={place}: {problem}" if variable else f"{place}: {problem}")
    raise LaunchError(
        f"no place for the service's files ({'; '.join(refused)}); set TMPDIR to a folder that can "
        f"be written, of at most {LONGEST} plain ASCII characters, such as a tmpfs on /tmp"
    )


def _locked(path: Path, about: bytes) -> tuple[Path, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(descriptor)
        # Without the lock, any launcher may remove it from now on.
        (path / ABOUT).write_bytes(about)
    except OSError:
        os.close(descriptor)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path, descriptor


def _problem(place: Path) -> str | None:
    text = os.fsencode(place)
    if len(text) > LONGEST:
        return f"{len(text)} bytes are too long for a Unix socket in it, at most {LONGEST} fit"
    if not _PLAIN.fullmatch(str(place)):
        return "holds characters that Java's settings cannot; letters, digits and ._+=@,- can be"
    return None


def _places() -> list[tuple[str, Path]]:
    named = [(name, os.environ[name]) for name in VARIABLES if os.environ.get(name)]
    places: dict[Path, str] = {}
    for name, text in (*named, *(("", fallback) for fallback in FALLBACKS)):
        places.setdefault(Path(text).absolute(), name)
    return [(name, path) for path, name in places.items()]


def _ours(place: Path) -> Iterator[Path]:
    # Another user may have made a directory of this name in /tmp, so the owner is checked.
    with contextlib.suppress(OSError):
        for directory in sorted(place.glob(f"{PREFIX}*")):
            found = directory.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                yield directory


@contextlib.contextmanager
def _open(directory: Path) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
