"""The ledger of epochs: every event that changed what is in force, in one append-only file.

    FOLDER/BINDING/ledger   header, then a line an event

All replicas of a model write to it, also over a shared volume, each under a lock: whoever has it
reads what the others wrote, decides, and appends. So an epoch begins once, whoever saw its end.
What is appended outlives a power failure. Other events take the place of these by a rename, so that
there is no moment at which a reader finds none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skipserve.earning.compaction import compacted
from skipserve.earning.counts_file import PREFIX as COUNTS
from skipserve.earning.epochs import reset
from skipserve.earning.events import MOST, Begun, Crossed, Event, Proposed, Withdrawn
from skipserve.earning.ladder import OWN, Ladder
from skipserve.earning.lines import (
    Header,
    append,
    contents,
    damaged,
    line,
    put_in_place,
    sync_folder,
)
from skipserve.earning.process_file import folder_of
from skipserve.earning.proofs import flaw, proposes
from skipserve.earning.rows_file import PREFIX as ROWS
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied

NAME = "ledger"
# Shortened from here on.
LONG_BYTES = 256 << 10
# Whoever holds the lock gives it back within milliseconds, unless it was stopped.
LOCK_S = 2.0
LOCK_TRIES = 40
_KINDS: dict[str, type[Event]] = {
    "begun": Begun,
    "crossed": Crossed,
    "proposed": Proposed,
    "withdrawn": Withdrawn,
}


class Ledger:
    """Events of one model's epochs.

    Args:
        folder: Of the model's state.
        binding: What the events are about, see binding.py.
        rules: That they follow; what does not follow from its counts is damage.

    Attributes:
        binding: What the events are about.
        rules: That they follow.
        events: As they were when the ledger was last read.
        state: That they lead to.
    """

    def __init__(self, folder: Path, binding: str, rules: Rules) -> None:
        self.binding = binding
        self.rules = rules
        self._folder = folder_of(folder, binding)
        self._file = self._folder / NAME
        self._header = Header("ledger", binding)
        self._mark = (0, 0, 0)
        self.events: tuple[Event, ...] = ()
        self.state = State()

    def read(self) -> State:
        """Take in what others wrote.

        Raises:
            StateError: If it is damaged, of something else or of a newer version.
            OSError: If it cannot be read.
        """
        try:
            with self._file.open("rb") as stream:
                self._take(stream.fileno())
        except FileNotFoundError:
            self._forget()
        return self.state

    def turn(self, decide: Callable[[State], Sequence[Event]]) -> Sequence[Event]:
        """Decide on what is there, with the others kept out, and write down what follows.

        Args:
            decide: Gets the state; what it returns is written as a whole or not at all.

        Returns:
            What was written.

        Raises:
            StateError: As :meth:`read`.
            OSError: If it cannot be written; then nothing has happened.
        """
        with self._held() as descriptor:
            self._take(descriptor)
            events = decide(self.state)
            if events:
                fresh = not self._mark[1]
                append(descriptor, self._lines(events, head=fresh), lasting=True)
                if fresh:
                    sync_folder(self._folder)
                self._take(descriptor)
                self._shorten()
        return events

    def _shorten(self) -> None:
        """Leave out of a ledger that has grown long what changes nothing any more."""
        if self._mark[1] < LONG_BYTES:
            return
        fewer = compacted(self.rules, self.events)
        # Not for little: it is looked at again at the next event.
        if len(fewer) <= len(self.events) / 2:
            with contextlib.suppress(OSError):  # a long one is as good
                self._replace(fewer)
                self.read()

    def reset(self, at_s: float) -> None:
        """Forget everything, damage included, and begin an epoch that nobody has counted for yet.

        Raises:
            OSError: If it cannot be written; then nothing is forgotten.
        """
        self.rewrite(lambda last: reset(self.rules, last, at_s))

    def rewrite(self, decide: Callable[[int], Sequence[Event]]) -> None:
        """Write other events in place of these, and forget all counts.

        Args:
            decide: Gets the last epoch that any worker may have been told of; the last event must
                begin a later one.

        Raises:
            OSError: If it cannot be written; then nothing has happened.
        """
        with self._held():
            last = max((_epochs_said(file) for file in _files(self._folder)), default=0)
            self._replace(decide(last))
            # The new events begin a later epoch than any of these counts: they go last.
            for file in _of_processes(self._folder):
                with contextlib.suppress(OSError):
                    file.unlink()
            self.read()

    def _lines(self, events: Sequence[Event], head: bool) -> bytes:
        first = line(self._header) if head else b""
        return first + b"".join(line(told(one)) for one in events)

    def _replace(self, events: Sequence[Event]) -> None:
        os.close(put_in_place(self._file, self._lines(events, head=True), lasting=True))

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = self._locked()
        try:
            yield descriptor
        finally:
            os.close(descriptor)  # and with it the lock

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._file, flags, 0o600)
        try:
            for _ in range(LOCK_TRIES):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(LOCK_S / LOCK_TRIES)
                    continue
                # Whoever had the lock may have put another file in its place.
                if _same(descriptor, self._file):
                    return descriptor
                fresh = os.open(self._file, flags, 0o600)
                os.close(descriptor)
                descriptor = fresh
            raise OSError(errno.EWOULDBLOCK, "another process keeps it locked", str(self._file))
        except BaseException:
            os.close(descriptor)
            raise

    def _forget(self) -> None:
        self._mark, self.events, self.state = (0, 0, 0), (), State()

    def _take(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        mark = about.st_ino, about.st_size, about.st_mtime_ns
        if mark == self._mark:
            return
        data = os.pread(descriptor, about.st_size, 0)
        whole = data.rfind(b"\n") + 1
        events = events_of(contents(data, self._file, self._header), self._file)
        if how := flaw(self.rules, events):
            raise damaged(self._file, how)
        if whole < len(data):
            # Half a line, of a writer that was killed: nothing may be appended to it.
            with contextlib.suppress(OSError):  # opened to be read only
                os.ftruncate(descriptor, whole)
        self._mark = about.st_ino, whole, about.st_mtime_ns
        self.events = tuple(events)
        self.state = applied(State(), events)


def ladders_in(folder: Path, binding: str, own: Ladder) -> dict[str, Ladder]:
    """The ladders that epochs of a model have proposed, by name.

    Args:
        folder: Of the model's state.
        binding: What they are about.
        own: The artifact's own ladder.

    Raises:
        StateError: If the ledger is damaged, of something else or of a newer version.
        OSError: If it cannot be read.
    """
    file = folder_of(folder, binding) / NAME
    events = events_of(contents(file.read_bytes(), file, Header("ledger", binding)), file)
    found = [one for one in events if isinstance(one, Proposed) and one.candidates]
    if not all(proposes(one, own) for one in found):
        raise damaged(file, "what an epoch proposed is not what it is named by")
    return ladders_of(found)


def ladders_of(events: Sequence[Event]) -> dict[str, Ladder]:
    """The ladders that are proposed in a history, by name."""
    return {
        one.proposal: Ladder.of(one.candidates, one.guard_limit, one.proposal)
        for one in events
        if isinstance(one, Proposed) and one.candidates
    }


def used_before(events: Sequence[Event], epoch: int) -> str:
    """Name of the ladder that was earned for before an epoch; the artifact's own after a reset."""
    used = OWN
    for one in events:
        if isinstance(one, Begun) and one.because == "reset":
            used = OWN
        elif isinstance(one, Proposed) and one.epoch < epoch:
            used = one.proposal
    return used


def events_of(lines: Sequence[bytes], file: Path) -> list[Event]:
    """The events in the lines of a file.

    Raises:
        StateError: If a line is none.
    """
    found: list[Event] = []
    for text in lines:
        try:
            said: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
            found.append(msgspec.convert(said, _KINDS[said.pop("kind")]))
        except (msgspec.MsgspecError, LookupError, TypeError):
            raise damaged(file, "a line is no event") from None
    return found


def told(event: Event) -> dict[str, Any]:
    """An event as a line says it."""
    kind = next(name for name, of in _KINDS.items() if isinstance(event, of))
    return {"kind": kind, **msgspec.to_builtins(event)}


def _same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _files(folder: Path) -> list[Path]:
    return [folder / NAME, *_of_processes(folder)]


def _of_processes(folder: Path) -> Iterator[Path]:
    return (file for prefix in (COUNTS, ROWS) for file in folder.glob(f"{prefix}*"))


def _epochs_said(file: Path) -> int:
    """The highest epoch that any line names which can be read, whatever its checksum."""
    most = 0
    with contextlib.suppress(OSError):
        for text in file.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                said = msgspec.json.decode(text.rpartition(b" ")[0])
                epoch = said.get("epoch", 0) if isinstance(said, dict) else 0
                most = max(most, epoch if isinstance(epoch, int) and epoch < MOST else 0)
    return most
