"""Counts of evidence in files: one a worker, append-only, summed by whoever reads them.

A line carries totals, not differences: of each epoch the last one counts, and a file that has grown
long is begun anew with what still counts. What was counted for one ladder is never added to what
was counted for another: a line names both, epoch and proposal.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.earning.counts import Counts
from skipserve.earning.ladder import OWN
from skipserve.earning.lines import Header, contents, damaged, line
from skipserve.earning.process_file import ProcessFile, ProcessFiles

KIND = "counts"
PREFIX = f"{KIND}."

Key = tuple[int, str]  # epoch and proposal


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    epoch: int
    rows: int
    disagreements: list[int]
    blocks: list[int]
    dropped: int = 0
    proposal: str = OWN


class CountsFile(ProcessFile):
    """The counts of one process.

    Args:
        folder: Of the model's state.
        binding: What is counted, see binding.py.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, binding: str) -> None:
        super().__init__(folder, KIND, binding)
        self._totals: dict[Key, Counts] = {}
        self._changed: set[Key] = set()

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
        proposal: str = OWN,
    ) -> None:
        """Count rows; never waits for the disk.

        Args:
            epoch: That was in force as they were drawn; rows of epoch 0 count for nothing.
            rows: How many.
            disagreements: Of each candidate among them [candidates].
            blocks: That each would have run for them [candidates].
            dropped: Rows that were drawn and could not be run.
            proposal: The ladder that the candidates are of.
        """
        if not epoch or not (rows or dropped):
            return
        seen = Counts(rows, disagreements.astype(np.int64), blocks.astype(np.int64), dropped)
        key = epoch, proposal
        with self._lock:
            if key not in self._totals:
                # Rows of the epoch before may still be on their way, older ones are not.
                self._totals = {one: of for one, of in self._totals.items() if one[0] >= epoch - 1}
            before = self._totals.get(key)
            self._totals[key] = seen if before is None else before + seen
            self._changed.add(key)
            self._wake()

    def _fresh(self) -> bytes:
        return self._lines(sorted(self._changed & self._totals.keys()))

    def _all(self) -> bytes:
        return self._lines(sorted(self._totals))

    def _written(self) -> None:
        self._changed.clear()

    def _lines(self, keys: list[Key]) -> bytes:
        found = []
        for epoch, proposal in keys:
            of = self._totals[epoch, proposal]
            differ, blocks = of.disagreements.tolist(), of.blocks.tolist()
            found.append(line(_Line(epoch, of.rows, differ, blocks, of.dropped, proposal)))
        return b"".join(found)


class CountsReader:
    """Sums what all processes have counted, and tidies up behind those that are gone.

    Args:
        folder: Of the model's state.
        binding: What is counted.
        candidates: How many the artifact has.
    """

    def __init__(self, folder: Path, binding: str, candidates: int) -> None:
        self._candidates = candidates
        self._files = ProcessFiles(folder, KIND, binding, self._parsed, _latest)

    def read(self, proposal: str = OWN) -> dict[int, Counts]:
        """Counts for one ladder, of every epoch that files are there of.

        Raises:
            StateError: If a file is damaged, of something else or of a newer version.
            OSError: If one cannot be read.
        """
        found: dict[int, Counts] = {}
        for file, here in self._files.read().items():
            for (epoch, of), counts in here.items():
                if of != proposal:
                    continue
                before = found.get(epoch)
                if before is not None and before.blocks.shape != counts.blocks.shape:
                    raise damaged(file, "it counts more or fewer candidates than another")
                found[epoch] = counts if before is None else before + counts
        return found

    def tidy(self, epoch: int) -> None:
        """Remove files that nobody writes to and that hold nothing of this epoch or a later one."""
        self._files.tidy(epoch)

    def _parsed(self, file: Path, header: Header) -> dict[Key, Counts]:
        found: dict[Key, Counts] = {}
        for content in contents(file.read_bytes(), file, header):
            try:
                one = msgspec.json.decode(content, type=_Line)
            except msgspec.MsgspecError:
                raise damaged(file, "a line is none of counts") from None
            differ, blocks = np.array(one.disagreements), np.array(one.blocks)
            count = self._candidates if one.proposal == OWN else len(differ)
            fits = differ.shape == blocks.shape == (count,) and count > 0
            if not fits or differ.min() < 0 or differ.max() > one.rows:
                raise damaged(file, f"its counts are none of {count} candidates")
            found[one.epoch, one.proposal] = Counts(one.rows, differ, blocks, one.dropped)
        return found


def _latest(counts: dict[Key, Counts]) -> int:
    return max((epoch for epoch, _ in counts), default=0)
