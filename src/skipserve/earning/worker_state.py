"""What one worker writes down of its evidence, and the ladders that it is told of by name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.asked import Precision
from skipserve.artifacts.certificates import from_json
from skipserve.artifacts.manifest import Manifest
from skipserve.earning.binding import binding_of
from skipserve.earning.counts_file import CountsFile
from skipserve.earning.ladder import OWN, Ladder
from skipserve.earning.ledger import ladders_in
from skipserve.earning.rows_file import RowsFile
from skipserve.errors import StateError
from skipserve.runtime.shown import Shown

# Tells the workers where the state of each model is.
DIRECTORY_VARIABLE = "SKIPSERVE_EVIDENCE"
# A ledger that does not name what a worker was told of is read again after so long.
RETRY_S = 5.0

logger = logging.getLogger(__name__)


class WorkerState:
    """The state of a slice of a model's traffic, as far as a worker has to do with it.

    Args:
        folder: Of the model's state.
        binding: What runs, see binding.py.
        own: The artifact's own ladder, which every other one is held against.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, binding: str, own: Ladder) -> None:
        self._folder, self._binding, self._own = folder, binding, own
        self._counts = CountsFile(folder, binding)
        self._rows = RowsFile(folder, binding)
        self._ladders: dict[str, Ladder] = {}
        self._next_s = 0.0

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
        proposal: str = OWN,
    ) -> None:
        """Count rows; see :meth:`CountsFile.add`. Those of their epoch that proposed are done."""
        self._rows.done(epoch)
        self._counts.add(epoch, rows, disagreements, blocks, dropped, proposal)

    def show(self, epoch: int, shown: Shown) -> None:
        """Keep rows that propose; see :meth:`RowsFile.add`."""
        self._rows.add(epoch, shown)

    def ladder(self, proposal: str) -> Ladder | None:
        """The ladder of this name that traffic has proposed; ``None`` if nothing says so."""
        now_s = time.monotonic()
        if proposal not in self._ladders and now_s >= self._next_s:
            self._next_s = now_s + RETRY_S
            try:
                self._ladders |= ladders_in(self._folder, self._binding, self._own)
            except (StateError, OSError) as error:
                logger.error("what was proposed cannot be read: %s; nothing skips by it", error)
            if proposal in self._ladders:
                self._next_s = 0.0
        return self._ladders.get(proposal)

    def close(self) -> None:
        """Write the rest, and let the files go."""
        self._counts.close()
        self._rows.close()


def state_of(
    manifest: Manifest,
    candidates: NDArray[np.float32],
    files: Mapping[str, str],
    precision: Precision,
    provider: str,
    of_slice: str = "",
) -> WorkerState | None:
    """The state of a model; none without a launcher, a router or a folder to write to.

    Args:
        manifest: Of the artifact.
        candidates: Thresholds [candidates, decisions], from careful to bold.
        files: The sha256 of every file that runs, by name.
        precision: Theirs.
        provider: Where they run.
        of_slice: Of the traffic; "" is all of it.
    """
    directory, spec = os.environ.get(DIRECTORY_VARIABLE), manifest.router
    if directory is None or spec is None or not len(candidates):
        return None
    binding = binding_of(manifest, candidates, files, precision, provider, of_slice)
    own = Ladder(candidates, from_json(spec.guard_limit))
    try:
        return WorkerState(Path(directory) / manifest.name, binding, own)
    except OSError as error:
        logger.error(
            "%s gives no evidence: its state in %s cannot be written (%s); it earns nothing, and "
            "the alarm sees nothing",
            *(manifest.name, error.filename, error.strerror),
        )
        return None
