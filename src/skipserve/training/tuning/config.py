"""The section [tuning] of a build file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skipserve.schema import Record


class TuningConfig(Record):
    """How a network that was brought is tuned towards early exits.

    Attributes:
        weights: ``all`` of them, or ``lora``: matrices of low rank in the residual branches, the
            rest frozen; merged into the weights afterwards.
        rank: Of those matrices.
        epochs: Passes over the rows to fit on.
        batch_size: Rows a step.
        learning_rate: Of the network, at its largest; ten times as large for the exits' heads.
        exit_loss: Weight of the exits' losses together; that of full depth is 1.
        harm: Share of rows by which full depth may lose accuracy, where the rows have labels; else
            share whose full-depth answer may change.
        mixed: Whether the network runs in bfloat16 while it is tuned.
        checkpointing: Whether blocks are run again in the backward pass in place of keeping what
            they computed: slower, in less memory.
        threads: Cores used inside one operation; 0 takes all. Small networks are faster on one.
        seed: Of the order of the rows.
    """

    weights: Literal["all", "lora"] = "all"
    rank: Annotated[int, Field(ge=1)] = 8
    epochs: Annotated[int, Field(ge=1, le=1_000)] = 3
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    exit_loss: Annotated[float, Field(gt=0)] = 1.0
    harm: Annotated[float, Field(ge=0, lt=1)] = 0.002
    mixed: bool = False
    checkpointing: bool = False
    threads: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
