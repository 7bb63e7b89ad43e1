"""Counts of evidence in files: one a worker, append-only, summed by whoever reads them.

    FOLDER/BINDING/counts.PROCESS   header, then a line a flush: the totals of one epoch so far

A line carries totals, not differences: of each epoch the last one counts, and a file that has grown
long is begun anew with what still counts. A file belongs to the process that made it, which holds a
lock on it; so two replicas never write to one, also where they share a volume.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest, Precision
from skipserve.earning.binding import binding_of
from skipserve.earning.counts import Counts
from skipserve.earning.lines import Header, append, contents, damaged, line

# Tells the workers where the state of each model is.
DIRECTORY_VARIABLE = "SKIPSERVE_EVIDENCE"
PREFIX = "counts."
FLUSH_S = 1.0
# Begun anew from here on.
LONG_BYTES = 64 << 10

logger = logging.getLogger(__name__)


class _Line(msgspec.Struct, frozen=True):
    epoch: int
    rows: int
    disagreements: list[int]
    blocks: list[int]
    dropped: int = 0


class CountsFile:
    """The counts of one process; what is added is in its file within a second.

    A disk that is full loses nothing: the totals are kept here, and written once there is room.

    Args:
        folder: Of the model's state.
        binding: What is counted, see binding.py.
        candidates: How many there are.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, binding: str, candidates: int) -> None:
        self._folder = folder_of(folder, binding)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._header = Header("counts", binding)
        self._candidates = candidates
        self._file = self._folder / f"{PREFIX}{uuid.uuid4().hex}"
        self._descriptor = -1
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._totals: dict[int, Counts] = {}
        self._fresh: set[int] = set()
        self._failing = False

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
    ) -> None:
        """Count rows; never waits for the disk.

        Args:
            epoch: That was in force as they were drawn; rows of epoch 0 count for nothing.
            rows: How many.
            disagreements: Of each candidate among them [candidates].
            blocks: That each would have run for them [candidates].
            dropped: Rows that were drawn and could not be run.
        """
        if not epoch or not (rows or dropped):
            return
        seen = Counts(rows, disagreements.astype(np.int64), blocks.astype(np.int64), dropped)
        with self._lock:
            if epoch not in self._totals:
                # Rows of the epoch before may still be on their way, older ones are not.
                self._totals = {one: of for one, of in self._totals.items() if one >= epoch - 1}
            self._totals[epoch] = self._totals.get(epoch, Counts.none(self._candidates)) + seen
            self._fresh.add(epoch)
            self._wake()

    def flush(self) -> None:
        """Write what was added since the last time."""
        with self._lock:
            self._timer = None
            fresh = sorted(self._fresh & self._totals.keys())
            if not fresh:
                return
            try:
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
                self._fresh.clear()

    def close(self) -> None:
        """Write the rest, and let the file go."""
        self.flush()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def _write(self, epochs: list[int]) -> None:
        if self._descriptor >= 0:
            about = os.fstat(self._descriptor)
            # One that was removed, as by a reset, is made anew.
            if about.st_nlink and about.st_size < LONG_BYTES:
                append(self._descriptor, self._lines(epochs))
                return
        # Beside its place and renamed, so that a reader sees the old or the new one, whole.
        fresh = self._folder / f".{self._file.name}"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            append(descriptor, line(self._header) + self._lines(sorted(self._totals)))
            fresh.rename(self._file)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def _lines(self, epochs: list[int]) -> bytes:
        found = []
        for epoch in epochs:
            of = self._totals[epoch]
            differ, blocks = of.disagreements.tolist(), of.blocks.tolist()
            found.append(line(_Line(epoch, of.rows, differ, blocks, of.dropped)))
        return b"".join(found)


class CountsReader:
    """Sums what all processes have counted, and tidies up behind those that are gone.

    Args:
        folder: Of the model's state.
        binding: What is counted.
        candidates: How many there are.
    """

    def __init__(self, folder: Path, binding: str, candidates: int) -> None:
        self._folder = folder_of(folder, binding)
        self._header = Header("counts", binding)
        self._candidates = candidates
        self._known: dict[Path, tuple[tuple[int, int, int], dict[int, Counts]]] = {}

    def read(self) -> dict[int, Counts]:
        """Counts of every epoch that files are there of.

        Raises:
            StateError: If a file is damaged, of something else or of a newer version.
            OSError: If one cannot be read.
        """
        known: dict[Path, tuple[tuple[int, int, int], dict[int, Counts]]] = {}
        found: dict[int, Counts] = {}
        for file in sorted(self._folder.glob(f"{PREFIX}*")):
            try:
                about = file.stat()
                mark = about.st_ino, about.st_size, about.st_mtime_ns
                before = self._known.get(file)
                here = before[1] if before and before[0] == mark else self._counts(file)
            except FileNotFoundError:
                continue  # another replica has just tidied up
            known[file] = mark, here
            for epoch, counts in here.items():
                found[epoch] = found.get(epoch, Counts.none(self._candidates)) + counts
        self._known = known
        return found

    def tidy(self, epoch: int) -> None:
        """Remove files that nobody writes to and that hold nothing of this epoch or a later one."""
        for file, (_, counts) in self._known.items():
            if max(counts, default=0) >= epoch:
                continue
            with contextlib.suppress(OSError), file.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()

    def _counts(self, file: Path) -> dict[int, Counts]:
        found: dict[int, Counts] = {}
        for content in contents(file.read_bytes(), file, self._header):
            try:
                one = msgspec.json.decode(content, type=_Line)
            except msgspec.MsgspecError:
                raise damaged(file, "a line is none of counts") from None
            differ, blocks = np.array(one.disagreements), np.array(one.blocks)
            fits = differ.shape == blocks.shape == (self._candidates,)
            if not fits or differ.min() < 0 or differ.max() > one.rows:
                raise damaged(file, f"its counts are none of {self._candidates} candidates")
            found[one.epoch] = Counts(one.rows, differ, blocks, one.dropped)
        return found


def folder_of(folder: Path, binding: str) -> Path:
    """Where the state of one binding is, in the folder of a model's state."""
    return folder / binding[:32]


def counts_of(
    manifest: Manifest,
    candidates: NDArray[np.float32],
    files: Mapping[str, str],
    precision: Precision,
    provider: str,
) -> CountsFile | None:
    """The counts of this process; none without a launcher, a router or a folder to write to.

    Args:
        manifest: Of the artifact.
        candidates: Thresholds [candidates, decisions], from careful to bold.
        files: The sha256 of every file that runs, by name.
        precision: Theirs.
        provider: Where they run.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory is None or manifest.router is None or not len(candidates):
        return None
    binding = binding_of(manifest, candidates, files, precision, provider)
    try:
        made = CountsFile(Path(directory) / manifest.name, binding, len(candidates))
        atexit.register(made.close)
        return made
    except OSError as error:
        logger.error(
            "%s gives no evidence: its state in %s cannot be written (%s); it earns nothing, and "
            "the alarm sees nothing",
            *(manifest.name, error.filename, error.strerror),
        )
        return None
