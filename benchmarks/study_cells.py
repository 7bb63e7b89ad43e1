"""What the study compares: tasks, networks and seeds; a cell is one of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from skipserve.networks import NetworkConfig, parse_network
from skipserve.training.config import TrainingConfig
from skipserve.training.recipes import Digits, Mnist1D, Recipe, Samples, Split, TwoMoons

Conditions = dict[str, Samples]  # "clean" comes first
HALF = 1 / math.sqrt(2)
FAMILIAR = "clean"


@dataclass(frozen=True)
class Variant:
    """What differs between networks on one task.

    Attributes:
        connection: ``residual`` or ``gated``.
        exits: Trained to exit: early-exit loss 1.0 and layer dropout 0.1.
        norm: Placement of the normalisation.
        alpha: Scale of a residual update.
    """

    connection: str
    exits: bool
    norm: str
    alpha: float

    @property
    def key(self) -> str:
        training = "exit" if self.exits else "plain"
        return f"{self.connection}-{training}-{self.norm}-{self.alpha:.2f}"

    @property
    def label(self) -> str:
        return f"{self.connection}, {'exit-aware' if self.exits else 'plain training'}"


@dataclass(frozen=True)
class Task:
    """A data set with the network that is trained on it.

    Attributes:
        name: Also names the folder of its cells.
        title: For the page.
        recipe: Of a seed: every seed has draws of its own.
        test: Rows of a recipe on which nothing was trained, proposed or certified.
        shifted: The test rows, moved off what was trained on; labels kept.
        network: Depth, width, family; norm and α as in the first cells.
        training: What differs from the recipe's.
        risk: The ε that tables show.
    """

    name: str
    title: str
    recipe: Callable[[int], Any]
    test: Callable[[Any], Samples]
    shifted: Callable[[Samples, torch.Generator], Iterator[tuple[str, Samples]]]
    network: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    risk: float = 0.01

    def base(self, connection: str, exits: bool) -> Variant:
        """A variant with the task's own placement and α."""
        return Variant(connection, exits, self.network["norm"], self.network["alpha"])

    def conditions(self, recipe: Recipe, seed: int) -> Conditions:
        test = self.test(recipe)
        moved = self.shifted(test, torch.Generator().manual_seed(seed))
        return {FAMILIAR: test, **dict(moved)}


@dataclass(frozen=True)
class Cell:
    """One training run and all that is measured on it."""

    task: Task
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task.name}/{self.variant.key}/{self.seed}"

    def network(self, recipe: Recipe) -> NetworkConfig:
        shape = {"inputs": list(recipe.inputs), "classes": recipe.classes}
        chosen = asdict(self.variant)
        chosen.pop("exits")
        return parse_network({**shape, **self.task.network, **chosen})

    def training(self, recipe: Recipe) -> TrainingConfig:
        changes: dict[str, Any] = {**self.task.training, "seed": self.seed, "threads": 1}
        if self.variant.exits:
            changes |= {"exit_loss": 1.0, "layer_dropout": 0.1}
        return recipe.training.model_copy(update=changes)

    @property
    def is_base(self) -> bool:
        """Whether the cell asks all questions, or only how placement and α change the first."""
        return self.variant == self.task.base(self.variant.connection, self.variant.exits)


def cells(seeds: int, quick: bool = False) -> list[Cell]:
    """All cells in order of importance: whatever is finished makes a page."""
    moons, digits, mnist = tasks(quick)
    blocks: list[tuple[Task, list[Variant]]] = [
        (task, [task.base(c, e) for e in (True, False) for c in ("residual", "gated")])
        for task in (moons, digits, mnist)
    ]
    if not quick:
        every = [(norm, alpha) for norm in ("none", "pre", "post", "peri") for alpha in (HALF, 1.0)]
        blocks += [(task, placements(task, every)) for task in (moons, digits)]
        few = [("none", 1.0), ("post", 1.0), ("peri", 1.0), ("pre", HALF)]
        blocks.append((mnist, placements(mnist, few)))
    return [
        Cell(task, variant, seed)
        for task, variants in blocks
        for seed in range(seeds)
        for variant in variants
    ]


def placements(task: Task, pairs: list[tuple[str, float]]) -> list[Variant]:
    found = [Variant("residual", True, norm, alpha) for norm, alpha in pairs]
    return [variant for variant in found if variant != task.base("residual", True)]


def tasks(quick: bool = False) -> tuple[Task, Task, Task]:
    """The three tasks; ``quick`` makes them small enough for a test, and meaningless."""
    mlp = {"family": "mlp", "depth": 20, "width": 64, "norm": "none", "alpha": HALF}
    conv = {"family": "convnet", "depth": 8, "width": 24, "norm": "pre", "alpha": 1.0}
    rows: dict[Split, int] = {"train": 3_000, "test": 1_500, "propose": 2_000, "certify": 3_000}
    small: dict[str, Any] = {}
    if quick:
        mlp |= {"depth": 4, "width": 16}
        conv |= {"depth": 4, "width": 8}
        rows = dict.fromkeys(rows, 400)
        small = {"epochs": 3}
    return (
        Task(
            "moons",
            "Two moons",
            two_moons,
            fresh_moons,
            moved_away,
            mlp,
            {"epochs": 60, **small},
        ),
        Task(
            "digits",
            "Handwritten digits",
            digits_split,
            lambda recipe: recipe.draw("test"),
            noisy_digits,
            mlp | ({} if quick else {"depth": 12}),
            small,
            risk=0.05,
        ),
        Task(
            "mnist1d",
            "MNIST-1D",
            lambda seed: mnist1d(seed, tuple(rows.items())),
            lambda recipe: recipe.draw("test"),
            strange_signals,
            conv,
            {"epochs": 12, "batch_size": 64, "learning_rate": 3e-3, **small},
        ),
    )


def two_moons(seed: int) -> TwoMoons:
    recipe = TwoMoons()
    recipe.seed = 1_000 + 10 * seed
    return recipe


def fresh_moons(recipe: TwoMoons) -> Samples:
    # The recipe's own test split has 600 rows.
    other = TwoMoons()
    other.seed = recipe.seed + 50_000
    drawn = other.draw("propose")
    return Samples(drawn.inputs[:2_000], drawn.labels[:2_000])


def digits_split(seed: int) -> Digits:
    recipe = Digits()
    recipe.seed = 1_000 + seed
    return recipe


class DrawnOnce(Mnist1D):
    """Draws every split once: a fifth of a cell's time, and all networks of a seed share them."""

    def __init__(self, draws: Mapping[Split, tuple[int, int]]) -> None:
        self.draws = draws
        self.drawn: dict[Split, Samples] = {}

    def draw(self, split: Split) -> Samples:
        if split not in self.drawn:
            self.drawn[split] = super().draw(split)
        return self.drawn[split]


@cache
def mnist1d(seed: int, rows: tuple[tuple[Split, int], ...]) -> Mnist1D:
    first = 1_000 + 10 * seed
    return DrawnOnce({split: (count, first + at) for at, (split, count) in enumerate(rows)})


def moved_away(test: Samples, _: torch.Generator) -> Iterator[tuple[str, Samples]]:
    angle = torch.arange(len(test)) % 8 * (math.pi / 4)
    towards = torch.stack([angle.cos(), angle.sin()], dim=1)
    for distance in (0.25, 0.5, 1.0, 2.0, 3.0):
        yield f"moved {distance:g}", Samples(test.inputs + distance * towards, test.labels)


def noisy_digits(test: Samples, rng: torch.Generator) -> Iterator[tuple[str, Samples]]:
    yield from noise(test, rng, (0.02, 0.05, 0.1, 0.2, 0.5))
    image = test.inputs.unflatten(1, (8, 8))
    yield "moved 1 pixel", Samples(image.roll(1, dims=2).flatten(1), test.labels)


def strange_signals(test: Samples, rng: torch.Generator) -> Iterator[tuple[str, Samples]]:
    yield from noise(test, rng, (0.1, 0.2, 0.3, 0.5))
    for factor in (0.5, 1.25, 2.0):
        yield f"scaled {factor:g}", Samples(factor * test.inputs, test.labels)
    for places in (12, 20):  # training rolled by at most 8
        yield f"rolled {places}", Samples(test.inputs.roll(places, dims=1), test.labels)
    for share in (0.9, 0.6):  # the label is that of the larger part
        mixed = share * test.inputs + (1 - share) * test.inputs.roll(1, dims=0)
        yield f"mixed {share:g}", Samples(mixed, test.labels)


def noise(
    test: Samples, rng: torch.Generator, sizes: tuple[float, ...]
) -> Iterator[tuple[str, Samples]]:
    """Gaussian noise, in standard deviations of all features together."""
    deviation: Tensor = test.inputs.std()
    for size in sizes:
        added = torch.randn(test.inputs.shape, generator=rng) * size * deviation
        yield f"noise {size:g}", Samples(test.inputs + added, test.labels)
