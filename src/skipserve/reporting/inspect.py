"""`skipserve inspect`: what each block does, and whether a router is worth building."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from skipserve.errors import ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.reporting.cost import full_depth_s
from skipserve.reporting.model import Model
from skipserve.reporting.readings import (
    BATCH,
    Blocks,
    measure_blocks,
    read_engine,
    read_network,
)
from skipserve.reporting.sample import Sample
from skipserve.reporting.verdict import Prospect, hindrance, prospect, sentence
from skipserve.routing.config import RouterConfig
from skipserve.routing.judge import Readings
from skipserve.routing.stages import DECISION_S, block_time, choose_decisions
from skipserve.runtime.engine import Engine

# Other work on the machine only ever makes a block look slower: the fastest of these counts.
TRIES = 10
# Norms and influences are means: more rows would not move them.
STREAM_ROWS = 2_000


@dataclass(frozen=True)
class Inspection:
    """A network looked at block by block.

    Attributes:
        name: Of the model.
        source: Where the rows come from, in words.
        rows: How many.
        readings: Answers by depth.
        accuracy: Of them by depth [D], or ``None`` without labels.
        blocks: What blocks do to the stream, or ``None`` without a checkpoint.
        prospect: What there is to gain, or ``None`` if the question does not arise.
        verdict: The same in words; it may say no.
        notes: What was left out and why, a sentence each.
    """

    name: str
    source: str
    rows: int
    readings: Readings
    accuracy: NDArray[np.float64] | None
    blocks: Blocks | None
    prospect: Prospect | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Rate of answers that are those of full depth [D]."""
        rates: NDArray[np.float64] = self.readings.agrees.mean(axis=0)
        return rates


def inspect_model(
    model: Model, sample: Sample, risk: float, readings: Readings | None = None
) -> Inspection:
    """Look at a model block by block.

    Args:
        model: With a checkpoint, or an artifact with a router.
        sample: Rows to look with.
        risk: ε that the verdict allows.
        readings: Of the sample, if they are at hand.

    Raises:
        ConfigError: If there is nothing that can be stopped early, or the risk is not between 0
            and 1.
    """
    if not 0 < risk < 1:
        raise ConfigError(f"--risk must lie between 0 and 1, got {risk:g}")
    blocks, engine = None, None
    notes = list(model.notes)
    if model.checkpoint is not None:
        network = model.checkpoint.network
        blocks = measure_blocks(network, sample.inputs[:STREAM_ROWS])
        readings = readings or read_network(network, sample.inputs)
    else:
        engine = routed_engine(model)
        readings = readings or read_engine(engine, sample.inputs, BATCH)
    if sample.labels is None:
        notes.append("The rows came without labels: accuracy is left out (--labels labels.npy)")
    right = None
    if sample.labels is not None:
        right = (readings.labels == sample.labels[:, None]).mean(axis=0)
    found = None
    verdict = hindrance(readings, sample.labels, risk, model.skippable)
    if not verdict:
        found = prospect(readings, _decisions(model), risk, _block_s(model, engine, sample))
        verdict = sentence(found)
    return Inspection(
        name=model.name,
        source=sample.source,
        rows=len(sample),
        readings=readings,
        accuracy=right,
        blocks=blocks,
        prospect=found,
        verdict=verdict,
        notes=tuple(notes),
    )


def routed_engine(model: Model) -> Engine:
    """Open an artifact whose router lets every depth be asked for.

    Raises:
        ConfigError: If it has none.
    """
    assert model.artifact is not None
    if model.artifact.manifest.router is None:
        raise ConfigError(
            f"{model.artifact.directory} has no router, and no checkpoint belongs to it, so it "
            "cannot be stopped early to look inside; keep its checkpoint in "
            f"checkpoints/{model.name}, or add [router] to its TOML and build again"
        )
    return Engine(model.artifact)


def table(found: Inspection) -> Table:
    """An inspection for the terminal, one line a block."""
    made = Table(title=f"{found.name}: {found.rows:,} rows from {found.source}", title_style="bold")
    for name in ("block", "norm", "update", "influence", "accuracy", "agrees"):
        made.add_column(name, justify="right")
    for row in rows(found):
        made.add_row(*row)
    return made


def rows(found: Inspection) -> list[Sequence[str]]:
    """The table as text: block, norm, relative update, influence, accuracy, agreement."""
    lines: list[Sequence[str]] = []
    if found.blocks is not None:
        lines.append(("stem", _short(found.blocks.norm[0]), "", "", "", ""))
    for at, blocks in enumerate(found.readings.blocks.tolist()):
        stream = ("–", "–", "–")
        if found.blocks is not None:
            one = found.blocks
            stream = (
                _short(one.norm[blocks]),
                _short(one.update[blocks - 1]),
                f"{one.influence[blocks - 1]:.4f}",
            )
        right = "–" if found.accuracy is None else f"{found.accuracy[at]:.1%}"
        lines.append((str(blocks), *stream, right, f"{found.agreement[at]:.2%}"))
    return lines


def _short(value: float) -> str:
    return f"{value:.3g}"


def _decisions(model: Model) -> Sequence[int]:
    if model.artifact is not None and model.artifact.manifest.router is not None:
        return model.artifact.manifest.router.decisions
    assert model.checkpoint is not None
    network = model.checkpoint.network
    if network.config.depth < 2:
        return []
    return choose_decisions(RouterConfig(), network)[0]


def _block_s(model: Model, engine: Engine | None, sample: Sample) -> float:
    if model.checkpoint is not None:
        return _quiet_block_time(model.checkpoint.network)
    assert engine is not None
    # Full depth pays for every decision of the file as well.
    blocks_s = full_depth_s(engine, sample.inputs) - len(_decisions(model)) * DECISION_S
    return max(blocks_s, DECISION_S / 100) / model.depth


def _quiet_block_time(network: ResidualNetwork) -> float:
    return min(block_time(network) for _ in range(TRIES))
