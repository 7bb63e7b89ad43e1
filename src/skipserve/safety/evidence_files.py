"""The files that what a slice of traffic has earned is kept in, for what its workers run on."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from skipserve.earning.counts import Counts
from skipserve.earning.counts_file import CountsReader
from skipserve.earning.ledger import Ledger
from skipserve.earning.process_file import folder_of
from skipserve.earning.rows_file import RowsReader
from skipserve.earning.rules import Rules
from skipserve.earning.state import State
from skipserve.errors import StateError
from skipserve.runtime.shown import Shown

# Less room than this is none: workers and launcher could not write what they see.
ROOM_BYTES = 1 << 20


class EvidenceFiles:
    """The ledger, the counts and the rows that propose, of one binding.

    Args:
        folder: Of the model's state.
        binding: What they hold for, see earning/binding.py.
        rules: Of the epochs.
        decisions: At which rows may leave.

    Attributes:
        ledger: Of the epochs.
    """

    def __init__(self, folder: Path, binding: str, rules: Rules, decisions: int) -> None:
        self.ledger = Ledger(folder, binding, rules)
        self._counts = CountsReader(folder, binding, rules.candidates)
        self._rows = RowsReader(folder, binding, decisions)
        self._folder = folder_of(folder, binding)

    def counted(self, state: State, candidates: int) -> Counts:
        """Evidence of the present epoch, of all processes.

        Args:
            state: Where the epochs stand.
            candidates: Of the ladder that is earned for.

        Raises:
            StateError: If a file is damaged, of something else or of a newer version, or counts
                more or fewer candidates.
            OSError: If one cannot be read.
        """
        found = self._counts.read(state.proposal).get(state.epoch, Counts.none(candidates))
        if len(found.blocks) != candidates:
            raise StateError(
                f"evidence of epoch {state.epoch} counts {len(found.blocks)} candidates, and "
                f"{candidates} were proposed; forget it with `skipserve certificate --reset`"
            )
        return found

    def shown(self, epoch: int) -> Shown:
        """The rows of an epoch that propose; errors as of :meth:`counted`."""
        return self._rows.read(epoch)

    def need_room(self) -> None:
        """Make the folder.

        Raises:
            OSError: If there is no room in it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def tidy(self, state: State) -> None:
        """Remove what processes that have ended left and nobody needs; errors as of counted."""
        self._counts.tidy(state.epoch - 1)
        self._rows.read(state.epoch)  # tells which files there are
        # Single rows are kept no longer than until they have proposed.
        self._rows.tidy(state.epoch if state.propose_rows else state.epoch + 1)
