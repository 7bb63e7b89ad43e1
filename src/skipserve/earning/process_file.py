"""Files of one process each, append-only, that others read: what evidence rows say is kept in them.

    FOLDER/BINDING/KIND.PROCESS   header, then lines

A file belongs to the process that made it, which holds a lock on it; so two replicas never write to
one, also where they share a volume. Whoever reads takes all files of a kind together.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from skipserve.earning.lines import Header, append, line, put_in_place

FLUSH_S = 1.0
# Whoever puts a file in its place takes no longer than this.
LEFT_S = 3600.0
# Begun anew from here on.
LONG_BYTES = 64 << 10

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ProcessFile(ABC):
    """What one process has to say; what is added is in its file within a second.

    A disk that is full loses nothing: it is kept here, and written once there is room.

    Args:
        folder: Of the model's state.
        kind: Of the file.
        binding: What it holds for, see binding.py.
        longest: In bytes; begun anew behind that.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, kind: str, binding: str, longest: int = LONG_BYTES) -> None:
        self._folder = folder_of(folder, binding)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._header = Header(kind, binding)
        self._file = self._folder / f"{kind}.{uuid.uuid4().hex}"
        self._longest = longest
        self._descriptor = -1
        self._timer: threading.Timer | None = None
        self._failing = False
        self._is_void, self._closed = False, False
        self._lock = threading.Lock()

    @abstractmethod
    def _fresh(self) -> bytes:
        """Lines that were not written yet."""

    @abstractmethod
    def _all(self) -> bytes:
        """All lines that still count."""

    @abstractmethod
    def _written(self) -> None:
        """The fresh lines stand in the file."""

    def flush(self) -> None:
        """Write what was added since the last time."""
        with self._lock:
            self._timer = None
            fresh = self._fresh()
            try:
                if self._is_void:
                    self._file.unlink(missing_ok=True)
                    self._is_void = False
                if fresh:
                    self._write(fresh)
            except OSError as error:
                if not self._failing:
                    logger.error(
                        "%s cannot be written (%s): evidence is kept in memory, and nothing is "
                        "earned by it until there is room",
                        *(self._file, error.strerror),
                    )
                self._failing = True
                self._wake()
            else:
                self._failing = False
                if fresh:
                    self._written()

    def close(self) -> None:
        """Write the rest, and let the file go; nothing is written any more."""
        self.flush()
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _void(self) -> None:
        """What stands in the file says nothing any more: it is removed with the next flush."""
        self._is_void = True
        self._wake()

    def _wake(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(FLUSH_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def _write(self, lines: bytes) -> None:
        if self._descriptor >= 0:
            about = os.fstat(self._descriptor)
            # One that was removed, as by a reset, is made anew.
            if about.st_nlink and about.st_size < self._longest:
                append(self._descriptor, lines)
                return
        descriptor = put_in_place(self._file, line(self._header) + self._all())
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor


class ProcessFiles(Generic[T]):
    """The files of all processes, each read again only once it has changed.

    Args:
        folder: Of the model's state.
        kind: Of the files.
        binding: What they hold for.
        parsed: What a file says; its header is among the arguments.
        latest: The last epoch that something is said of, 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        binding: str,
        parsed: Callable[[Path, Header], T],
        latest: Callable[[T], int],
    ) -> None:
        self._folder = folder_of(folder, binding)
        self._header = Header(kind, binding)
        self._parsed, self._latest = parsed, latest
        self._known: dict[Path, tuple[tuple[int, int, int], T]] = {}

    def read(self) -> Mapping[Path, T]:
        """What each file says.

        Raises:
            StateError: If a file is damaged, of something else or of a newer version.
            OSError: If one cannot be read.
        """
        known: dict[Path, tuple[tuple[int, int, int], T]] = {}
        for file in sorted(self._folder.glob(f"{self._header.kind}.*")):
            try:
                about = file.stat()
                mark = about.st_ino, about.st_size, about.st_mtime_ns
                before = self._known.get(file)
                same = before is not None and before[0] == mark
                here = before[1] if before and same else self._parsed(file, self._header)
            except FileNotFoundError:
                continue  # another replica has just tidied up
            known[file] = mark, here
        self._known = known
        return {file: here for file, (_, here) in known.items()}

    def tidy(self, epoch: int) -> None:
        """Remove files that nobody writes to and that hold nothing of this epoch or a later one.

        With them go those that a killed process was about to put in place.
        """
        over = [file for file, (_, here) in self._known.items() if self._latest(here) < epoch]
        for file in [*over, *self._left()]:
            with contextlib.suppress(OSError), file.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()

    def _left(self) -> Iterator[Path]:
        for file in self._folder.glob(f".{self._header.kind}.*"):
            with contextlib.suppress(OSError):
                # A younger one may just have been made, and not be locked yet.
                if file.stat().st_mtime < time.time() - LEFT_S:
                    yield file


def folder_of(folder: Path, binding: str) -> Path:
    """Where the state of one binding is, in the folder of a model's state."""
    return folder / binding[:32]
