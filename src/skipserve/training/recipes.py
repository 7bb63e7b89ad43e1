"""Recipes: a data set with its splits and seeds, and how a network is trained on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split
from torch import Tensor

from skipserve.errors import ConfigError
from skipserve.training.config import TrainingConfig

Split = Literal["train", "test", "propose", "certify"]


@dataclass(frozen=True)
class Samples:
    """Labelled rows.

    Attributes:
        inputs: Raw features [N, *inputs], float32.
        labels: Classes [N], int64.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Recipe(Protocol):
    """What a recipe offers: shapes, defaults, and disjoint seeded draws by the name of a split."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> int: ...

    @property
    def training(self) -> TrainingConfig: ...

    def draw(self, split: Split) -> Samples:
        """The samples of one split; the same on every call."""
        ...


class TwoMoons:
    """Scikit-learn's two moons: 2,000 points, 70/30, and fresh draws to propose and certify on."""

    name = "two_moons"
    inputs = (2,)
    classes = 2
    training = TrainingConfig(
        epochs=100,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        clip_norm=1.0,
        threads=1,
    )
    noise = 0.2
    seed = 42

    def draw(self, split: Split) -> Samples:
        if split == "propose":
            return _moons(5_000, self.noise, self.seed + 1)
        if split == "certify":
            return _moons(10_000, self.noise, self.seed + 2)
        train, test = self._halves
        return train if split == "train" else test

    @cached_property
    def _halves(self) -> tuple[Samples, Samples]:
        whole = _moons(2_000, self.noise, self.seed)
        train, test = train_test_split(
            np.arange(len(whole)), test_size=0.3, random_state=self.seed, stratify=whole.labels
        )
        return (
            Samples(whole.inputs[train], whole.labels[train]),
            Samples(whole.inputs[test], whole.labels[test]),
        )


def _moons(count: int, noise: float, seed: int) -> Samples:
    points, labels = make_moons(count, noise=noise, random_state=seed)
    return _samples(points, labels)


def _samples(inputs: NDArray[np.floating], labels: NDArray[np.integer]) -> Samples:
    return Samples(
        torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))
    )


RECIPES: dict[str, Callable[[], Recipe]] = {TwoMoons.name: TwoMoons}


def open_recipe(name: str) -> Recipe:
    """Find a recipe by name.

    Raises:
        ConfigError: If there is none, with the nearest name.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RECIPES)}"
        raise ConfigError(f"unknown recipe {name!r}; {hint}")
    return RECIPES[name]()
