"""Recipes: a data set with splits and seeds, and training settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, suggestion
from skipserve.training.config import TrainingConfig
from skipserve.training.signals_1d import draw_signals

if TYPE_CHECKING:  # its import takes seconds, and a build file is read without it
    from torch import Tensor

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
    """A recipe: shapes, defaults, and disjoint seeded splits by name."""

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

    def augment(self, inputs: Tensor) -> Tensor:
        """Training rows [B, *inputs], varied without changing their classes."""
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

    def augment(self, inputs: Tensor) -> Tensor:
        return inputs

    @cached_property
    def _halves(self) -> tuple[Samples, Samples]:
        from sklearn.model_selection import train_test_split  # takes two seconds

        whole = _moons(2_000, self.noise, self.seed)
        train, test = train_test_split(
            np.arange(len(whole)), test_size=0.3, random_state=self.seed, stratify=whole.labels
        )
        return (
            Samples(whole.inputs[train], whole.labels[train]),
            Samples(whole.inputs[test], whole.labels[test]),
        )


class Mnist1D:
    """MNIST-1D (Greydanus and Kobak, ICML 2024): 40 samples of a shifted, noisy digit's outline.

    Generated, so that every split is a draw of its own seed. Each draw is standardised as a whole
    by the generator.
    """

    name = "mnist1d"
    inputs = (40,)
    classes = 10
    training = TrainingConfig(
        epochs=12,
        batch_size=128,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.01,
        schedule="one_cycle",
        clip_norm=1.0,
    )
    draws: Mapping[Split, tuple[int, int]] = MappingProxyType(
        {
            "train": (20_000, 1),
            "test": (20_000, 2),
            "propose": (20_000, 3),
            "certify": (20_000, 4),
        }
    )
    farthest_shift = 8

    def draw(self, split: Split) -> Samples:
        return _signals(*self.draws[split])

    def augment(self, inputs: Tensor) -> Tensor:
        """Roll every row by a whole number of positions of its own, at most eight."""
        import torch

        far = self.farthest_shift
        by = torch.randint(-far, far + 1, (len(inputs), 1))
        return inputs.gather(1, (torch.arange(inputs.shape[1]) - by) % inputs.shape[1])


class Digits:
    """Scikit-learn's handwritten digits: 1,797 images of 8 × 8, split in four by class.

    A small data set: its 400 rows to certify on allow no disagreement at 1 %, and 3 at 2 %.
    """

    name = "digits"
    inputs = (64,)
    classes = 10
    training = TrainingConfig(
        epochs=60,
        batch_size=64,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.01,
        schedule="one_cycle",
        clip_norm=1.0,
        threads=1,
    )
    sizes: Mapping[Split, int] = MappingProxyType(
        {"train": 797, "test": 300, "propose": 300, "certify": 400}
    )
    seed = 42

    def draw(self, split: Split) -> Samples:
        return self._splits[split]

    def augment(self, inputs: Tensor) -> Tensor:
        return inputs

    @cached_property
    def _splits(self) -> dict[Split, Samples]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        rest, found = np.arange(len(labels)), {}
        for split, size in list(self.sizes.items())[1:]:
            rest, rows = train_test_split(
                rest, test_size=size, random_state=self.seed, stratify=labels[rest]
            )
            found[split] = _samples(pixels[rows], labels[rows])
        return {"train": _samples(pixels[rest], labels[rest]), **found}


@lru_cache(maxsize=4)  # a build asks for each split more than once
def _signals(count: int, seed: int) -> Samples:
    return _samples(*draw_signals(count, seed))


def _moons(count: int, noise: float, seed: int) -> Samples:
    from sklearn.datasets import make_moons

    points, labels = make_moons(count, noise=noise, random_state=seed)
    return _samples(points, labels)


def _samples(inputs: NDArray[np.floating], labels: NDArray[np.integer]) -> Samples:
    import torch

    return Samples(
        torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    TwoMoons.name: TwoMoons,
    Mnist1D.name: Mnist1D,
    Digits.name: Digits,
}


def open_recipe(name: str) -> Recipe:
    """Find a recipe by name.

    Raises:
        ConfigError: If there is none, with the nearest name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; {suggestion(name, RECIPES, '')}")
    return RECIPES[name]()
