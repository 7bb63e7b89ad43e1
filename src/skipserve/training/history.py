"""The history of a run: its configuration and its curves, beside the weights of a checkpoint.

Nothing here needs torch.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.errors import CheckpointError
from skipserve.schema import Record
from skipserve.training.config import TrainingConfig

# The file of the weights.
WEIGHTS = "checkpoint.safetensors"


class RunConfig(Record):
    """The configuration of a run; ``network`` is read by the parser of its family."""

    recipe: str
    network: dict[str, Any]
    training: TrainingConfig
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch.

    Attributes:
        epoch: Counted from 1.
        loss: Mean training loss over the epoch's rows.
        accuracy: Share of the test split answered right after the epoch.
        gradients: Mean L2 norm over the epoch's steps of each layer's weight gradient, taken
            before clipping; in the order of the network.
    """

    epoch: int
    loss: float
    accuracy: float
    gradients: dict[str, float]


def write_history(directory: Path, history: Sequence[Epoch]) -> None:
    """Write the curves of a run into a checkpoint directory."""
    _write_csv(
        directory / "epochs.csv",
        ("epoch", "loss", "accuracy"),
        ((e.epoch, f"{e.loss:.6g}", f"{e.accuracy:.6g}") for e in history),
    )
    _write_csv(
        directory / "gradients.csv",
        ("epoch", "layer", "grad_norm"),
        ((e.epoch, layer, f"{norm:.6g}") for e in history for layer, norm in e.gradients.items()),
    )


def read_history(directory: Path) -> list[Epoch]:
    """The curves of a checkpoint directory, to the digits they were written with.

    Raises:
        CheckpointError: If they are missing or damaged.
    """
    try:
        norms: dict[str, dict[str, float]] = {}
        for row in _read_csv(directory / "gradients.csv"):
            norms.setdefault(row["epoch"], {})[row["layer"]] = float(row["grad_norm"])
        history = [
            Epoch(
                int(row["epoch"]), float(row["loss"]), float(row["accuracy"]), norms[row["epoch"]]
            )
            for row in _read_csv(directory / "epochs.csv")
        ]
    except OSError:
        history = []
    except (LookupError, ValueError) as error:
        raise CheckpointError(
            f"{directory} holds damaged curves ({error!r}); make them with `skipserve train`"
        ) from None
    if not history:
        raise CheckpointError(f"{directory} holds no curve; make one with `skipserve train`")
    return history


def _read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
