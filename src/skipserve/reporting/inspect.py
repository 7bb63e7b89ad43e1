"""`skipserve inspect`: the effect of each block, and whether a router is worth building."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from skipserve.errors import ConfigError
from skipserve.intervals import spelled
from skipserve.reporting.cost import lone_times
from skipserve.reporting.model import Model
from skipserve.reporting.readings import (
    BATCH,
    Blocks,
    Reading,
    block_time,
    measure_blocks,
    read_engine,
    read_network,
)
from skipserve.reporting.sample import Sample
from skipserve.reporting.verdict import Prospect, Times, hindrance, prospect, sentence
from skipserve.routing.choose import STEP_S
from skipserve.routing.judge import ByDepth
from skipserve.runtime.engine import Engine
from skipserve.tasks import Units, too_short_note

# What a decision takes where none can be timed: a step of the engine, and about as much to read.
DECISION_S = 2 * STEP_S
# A stage that is shorter than this many decisions is not worth one.
WORTH = 2.0
# Norms and influences are means: more rows would not move them.
STREAM_ROWS = 2_000


@dataclass(frozen=True)
class Inspection:
    """An inspection of a network, block by block.

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
    readings: ByDepth
    accuracy: NDArray[np.float64] | None
    blocks: Blocks | None
    prospect: Prospect | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Rate of agreement with full depth of what the task counts, by depth [D]."""
        rates: NDArray[np.float64] = self.readings.counted.mean(axis=0)
        return rates


def inspect_model(
    model: Model,
    sample: Sample,
    risk: float,
    reading: Reading | None = None,
    engine: Engine | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Inspection:
    """Inspect a model block by block.

    Args:
        model: With a checkpoint, or an artifact with a router.
        sample: Rows to look with.
        risk: ε that the verdict allows.
        reading: Of the sample, if it is at hand.
        engine: Of the artifact, if it is open.
        say: Receives what is being done.

    Raises:
        ConfigError: If there is nothing that can be stopped early, or the risk is not between 0
            and 1.
    """
    if not 0 < risk < 1:
        raise ConfigError(f"--risk must lie between 0 and 1, got {spelled(risk)}")
    engine = engine or open_engine(model)
    blocks = None
    notes = list(model.notes)
    if reading is None:
        say(f"reading {len(sample):,} rows at every depth")
    if model.checkpoint is not None:
        network = model.checkpoint.network
        blocks = measure_blocks(network, sample.inputs[:STREAM_ROWS])
        reading = reading or read_network(network, sample.inputs)
    elif reading is None:
        assert engine is not None
        reading = read_engine(engine, sample.rows, BATCH)
    units = Units(model.task, len(sample), sample.queries)
    readings = reading.by_unit(units, sample.labels)
    if sample.labels is None and model.task.link in ("softmax", "sigmoid"):
        notes.append("The rows came without labels: accuracy is left out (--labels COLUMN)")
    if readings.unit == "queries":
        notes.append(
            f"Agreement is that of {units.count:,} queries{too_short_note(units.too_short)}: they "
            f"disagree where {model.task.differs}"
        )
    right = None
    if readings.right is not None:
        right = readings.right.mean(axis=0)
    found = None
    verdict = hindrance(readings, sample.labels, risk, model.skippable, reading.one_answer)
    if not verdict:
        say("timing a block and a decision")
        times = _times(model, engine, sample)
        found = prospect(readings, _decisions(model, times), risk, times)
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


def open_engine(model: Model) -> Engine | None:
    """Open an artifact; ``None`` without one.

    Raises:
        ConfigError: If it has no router, and there is no checkpoint either.
    """
    if model.artifact is None:
        return None
    if model.checkpoint is None and model.artifact.manifest.router is None:
        checkpoint = f"keep its checkpoint in checkpoints/{model.name}, or " if model.recipe else ""
        raise ConfigError(
            f"{model.artifact.directory} has no router, and no checkpoint belongs to it, so it "
            f"cannot be stopped early to look inside; {checkpoint}add [router] to its TOML and "
            "build again"
        )
    return Engine(model.artifact)


def table(found: Inspection) -> Table:
    """An inspection for the terminal, one line a block."""
    made = Table(title=f"{found.name}: {found.rows:,} rows from {found.source}", title_style="bold")
    for name in columns(found):
        made.add_column(name, justify="right")
    for row in rows(found):
        made.add_row(*row)
    return made


def columns(found: Inspection) -> tuple[str, ...]:
    """Names of the table's columns: what is not known has none."""
    stream = () if found.blocks is None else ("norm", "update", "influence")
    right = () if found.accuracy is None else ("right",)
    return ("block", *stream, *right, "agrees")


def rows(found: Inspection) -> list[Sequence[str]]:
    """The table as text: block, norm, relative update, influence, accuracy, agreement."""
    depths = {blocks: at for at, blocks in enumerate(found.readings.blocks.tolist())}
    shown = range(found.readings.blocks[-1] + 1) if found.blocks is not None else depths
    lines: list[Sequence[str]] = []
    for blocks in shown:
        line = [str(blocks) if blocks else "stem"]
        if found.blocks is not None:
            one = found.blocks
            line.append(_short(one.norm[blocks]))
            line += ["", ""]
            if blocks:
                line[-2:] = [_short(one.update[blocks - 1]), f"{one.influence[blocks - 1]:.4f}"]
        at = depths.get(blocks)
        if found.accuracy is not None:
            line.append("–" if at is None else f"{found.accuracy[at]:.1%}")
        line.append("–" if at is None else f"{found.agreement[at]:.2%}")
        lines.append(line)
    return lines


def _short(value: float) -> str:
    return f"{value:.3g}"


def _decisions(model: Model, times: Times) -> Sequence[int]:
    if model.artifact is not None and model.artifact.manifest.router is not None:
        return model.artifact.manifest.router.decisions
    length = 1
    while length * times.block_s < WORTH * times.decision_s and length < model.depth // 2:
        length *= 2
    return range(length, model.depth, length)


def _times(model: Model, engine: Engine | None, sample: Sample) -> Times:
    """Seconds of a block and of a decision, on served files where there are any."""
    if engine is None:
        assert model.checkpoint is not None
        return Times(block_time(model.checkpoint.network), DECISION_S)
    full_s, decision_s = lone_times(engine, sample.rows)
    routed = engine.manifest.router is not None
    return Times(full_s / model.depth, decision_s if routed else DECISION_S)
