"""Rows that propose, in files: what each exit read off them, and whether it agreed.

These are no evidence. An epoch that proposes looks at its first rows to fix what its other rows are
evidence for; so numbers of single rows are kept until that is done, and no longer: a process
removes its file once it is told of what comes next, and whoever tidies removes those of processes
that have ended. A process keeps at most so many rows as propose.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.earning.lines import Header, contents, damaged, line
from skipserve.earning.process_file import ProcessFile, ProcessFiles
from skipserve.runtime.shown import Shown

KIND = "rows"
PREFIX = f"{KIND}."
# Most rows that propose: a worker keeps as many, for how many do is the ledger's to say.
MOST_ROWS = 10_000
# Nothing is appended to a longer one.
LONG_BYTES = 1 << 20


class _Line(msgspec.Struct, frozen=True):
    epoch: int
    signals: bytes
    distances: bytes
    agrees: bytes


class RowsFile(ProcessFile):
    """The rows of one process that propose.

    Args:
        folder: Of the model's state.
        binding: What ran, see binding.py.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, binding: str) -> None:
        super().__init__(folder, KIND, binding, LONG_BYTES)
        self._epoch, self._count, self._done = 0, 0, 0
        self._kept: list[bytes] = []
        self._pending: list[bytes] = []

    def add(self, epoch: int, shown: Shown) -> None:
        """Keep rows, while there is room for them; never waits for the disk.

        Args:
            epoch: In which they were drawn; those of an earlier one than the last are left out, and
                those of one that proposes no more.
            shown: What their exits read.
        """
        with self._lock:
            if epoch < max(self._epoch, self._done + 1):
                return
            if epoch > self._epoch:
                self._epoch = epoch
                self._forget()
            some = shown[: MOST_ROWS - self._count]
            if len(some):
                self._count += len(some)
                self._pending.append(line(_written(epoch, some)))
                self._wake()

    def done(self, epoch: int) -> None:
        """Forget the rows of an epoch, because it proposes no more; never waits for the disk."""
        with self._lock:
            if epoch > self._done:
                self._done = epoch
                if self._epoch <= epoch:
                    self._forget()

    def _forget(self) -> None:
        if self._count:
            self._kept, self._pending, self._count = [], [], 0
            self._void()

    def _fresh(self) -> bytes:
        return b"".join(self._pending)

    def _all(self) -> bytes:
        return b"".join([*self._kept, *self._pending])

    def _written(self) -> None:
        self._kept += self._pending
        self._pending = []


class RowsReader:
    """All rows that propose, of all processes.

    Args:
        folder: Of the model's state.
        binding: What ran.
        decisions: At which rows may leave.
    """

    def __init__(self, folder: Path, binding: str, decisions: int) -> None:
        self._decisions = decisions
        self._files = ProcessFiles(folder, KIND, binding, self._parsed, _latest)

    def read(self, epoch: int) -> Shown:
        """The rows of an epoch.

        Raises:
            StateError: If a file is damaged, of something else or of a newer version.
            OSError: If one cannot be read.
        """
        parts = [one for here in self._files.read().values() for one in here.get(epoch, ())]
        return Shown.together(parts, self._decisions)

    def tidy(self, epoch: int) -> None:
        """Remove files that nobody writes to and that hold nothing of this epoch or a later one."""
        self._files.tidy(epoch)

    def _parsed(self, file: Path, header: Header) -> dict[int, list[Shown]]:
        found: dict[int, list[Shown]] = {}
        for content in contents(file.read_bytes(), file, header):
            try:
                one = msgspec.json.decode(content, type=_Line)
                shown = _shown(one, self._decisions)
            except (msgspec.MsgspecError, ValueError):
                raise damaged(file, "a line is none of rows that propose") from None
            found.setdefault(one.epoch, []).append(shown)
        return found


def _latest(rows: dict[int, list[Shown]]) -> int:
    return max(rows, default=0)


def _written(epoch: int, shown: Shown) -> _Line:
    signals, distances = (one.astype("<f4").tobytes() for one in (shown.signals, shown.distances))
    return _Line(epoch, signals, distances, shown.agrees.astype("u1").tobytes())


def _shown(one: _Line, decisions: int) -> Shown:
    def table(data: bytes, dtype: str) -> NDArray[np.float32]:
        return np.frombuffer(data, dtype).reshape(-1, decisions)

    signals, distances = table(one.signals, "<f4"), table(one.distances, "<f4")
    agrees = table(one.agrees, "u1")
    if not len(signals) == len(distances) == len(agrees) or (agrees > 1).any():
        raise ValueError
    return Shown(signals, distances, agrees.astype(bool))
