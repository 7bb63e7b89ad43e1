"""How a network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skipserve.schema import Record


class TrainingConfig(Record):
    """Choices of the training loop; a recipe sets the defaults, a TOML file overrides them.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Rows per step.
        optimizer: ``sgd`` (with ``momentum``) or ``adamw``.
        momentum: Of ``sgd``.
        weight_decay: Of the optimizer.
        learning_rate: Step size; the peak of it under ``one_cycle``.
        schedule: ``constant`` or ``one_cycle``.
        clip_norm: Largest norm of the whole gradient; 0 does not clip.
        exit_loss: Weight of the cross-entropy of the head read after earlier blocks, growing in
            proportion to depth (LayerSkip, arXiv:2404.16710, section 4.1); 0 trains the last only.
        layer_dropout: Chance with which a row leaves out the last block, growing from 0 at the
            first in proportion to depth (arXiv:2404.16710, section 4.1).
        seed: Seeds the weights and the order of the rows.
        threads: Cores used inside one operation; 0 takes all. Small networks train several
            times faster on one than on two.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "one_cycle"] = "constant"
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    exit_loss: Annotated[float, Field(ge=0)] = 0.0
    layer_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
