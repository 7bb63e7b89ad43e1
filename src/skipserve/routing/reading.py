"""Reading every exit with a stepping engine whose stages are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from skipserve.cores import usable_cores
from skipserve.graph.memory import open_model
from skipserve.routing.exits import Exit
from skipserve.routing.network import Network
from skipserve.routing.propose import Observations
from skipserve.routing.stopping import inside_so_far
from skipserve.runtime.many import in_batches
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Cut, ExitReadings, Stepper
from skipserve.tasks import Task

# More at a time are no faster, and a transformer's rows take megabytes each.
BATCH = 32


def open_stepper(models: Sequence[onnx.ModelProto], exits: Sequence[Exit], depth: int) -> Stepper:
    """A stepping engine for stages in memory."""
    pieces = [OnnxPiece(open_model(model, arena=False)) for model in models]
    return Stepper(pieces, cuts_of(exits), depth)


def cuts_of(exits: Sequence[Exit]) -> list[Cut]:
    """The cuts of a stepper; cuts where rows leave are numbered."""
    found, decision = [], 0
    for one in exits:
        found.append(Cut(one.blocks, decision if one.leaves else None))
        decision += one.leaves
    return found


class ExitReader(Protocol):
    """Anything that reads every exit."""

    def read(self, rows: Rows) -> ExitReadings:
        """Run rows through every stage, reading every exit on the way."""
        ...


def read_all(stepper: ExitReader, rows: Rows) -> ExitReadings:
    """Readings of every exit for any number of rows."""
    return ExitReadings.joined(list(in_batches(stepper.read, rows, BATCH, usable_cores())))


def observations_of(
    network: Network, exits: Sequence[Exit], readings: ExitReadings, limit: NDArray[np.float64]
) -> Observations:
    """What a router observes, from what its exits read; every exit lets rows leave."""
    blocks = [*(one.blocks for one in exits), network.depth]
    return observe(readings, network.task, blocks, limit, [True] * len(exits))


def observe(
    readings: ExitReadings,
    task: Task,
    blocks: Sequence[int],
    limit: NDArray[np.float64] | float,
    leaves: Sequence[bool],
) -> Observations:
    """What a router observes, from what every exit reads.

    Args:
        readings: Of rows that ran everything.
        task: Says when two answers agree.
        blocks: Blocks run at each decision, and at full depth.
        limit: Of the guards: one for each exit, or one for all.
        leaves: Which exits are decisions.
    """
    full = readings.answers[:, -1]
    early = np.moveaxis(readings.answers[:, :-1], 1, 0)
    agrees = np.stack([task.agree(answers, full) for answers in early], axis=1)
    inside = inside_so_far(readings.distances, limit)
    return Observations(np.array(blocks), readings.signals, agrees, inside[:, np.array(leaves)])
