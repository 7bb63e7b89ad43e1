"""Shipped weights: trained once, and used instead of training while the configuration is equal.

NAME.safetensors   weights and input scaling, FP32
NAME.json          what made them, hashes of the training rows and of the weights, the run's curves

What made them is compared value by value, not by a hash: a key that is new and has its default
changes nothing. The rows are compared by a hash, so that it is about data and not about the code
that draws them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from skipserve.errors import CheckpointError, ConfigError
from skipserve.files import replace_text, sha256_of
from skipserve.networks import NetworkConfig, ResidualNetwork, parse_network
from skipserve.schema import Sha256, parse
from skipserve.training.checkpoint import load_checkpoint, load_network
from skipserve.training.config import TrainingConfig
from skipserve.training.history import Epoch, RunConfig, read_history
from skipserve.training.loop import accuracy
from skipserve.training.recipes import Recipe, Samples

# Weights can load into a network whose code has changed under them. So many rows of the test split
# show it; their accuracy lies nearer than this to that of the whole split.
TRIED_ROWS, TRIED_TOLERANCE = 1_000, 0.04


class Shipped(RunConfig):
    """The description of shipped weights.

    Attributes:
        data_sha256: Of the rows of the training split and their classes.
        weights_sha256: Of the weights file.
        losses: By epoch.
        accuracies: On the test split, by epoch.
        gradients: Layer name to mean norm by epoch.
    """

    data_sha256: Sha256
    weights_sha256: Sha256
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    gradients: dict[str, tuple[float, ...]]

    def history(self) -> list[Epoch]:
        """The epochs of the run."""
        return [
            Epoch(
                at + 1, loss, share, {layer: norms[at] for layer, norms in self.gradients.items()}
            )
            for at, (loss, share) in enumerate(zip(self.losses, self.accuracies, strict=True))
        ]


def ship(weights: Path, checkpoint: Path, recipe: Recipe) -> None:
    """Keep a checkpoint as ``weights`` and the JSON beside it.

    Args:
        weights: ``NAME.safetensors``; replaced if it is there.
        checkpoint: A checkpoint directory.
        recipe: What drew the rows it was trained on.

    Raises:
        CheckpointError: If the directory holds no checkpoint.
    """
    found, history = load_checkpoint(checkpoint), read_history(checkpoint)
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(found.network.state_dict(), weights)
    about = Shipped(
        **found.run.model_dump(),
        data_sha256=data_hash(recipe.draw("train")),
        weights_sha256=sha256_of(weights),
        losses=tuple(epoch.loss for epoch in history),
        accuracies=tuple(epoch.accuracy for epoch in history),
        gradients={
            layer: tuple(epoch.gradients[layer] for epoch in history)
            for layer in history[0].gradients
        },
    )
    replace_text(weights.with_suffix(".json"), _dumps(about))


def read_shipped(weights: Path) -> Shipped | None:
    """The description of shipped weights, or ``None`` if there are none.

    Raises:
        CheckpointError: If the JSON beside them is missing or damaged.
    """
    file = weights.with_suffix(".json")
    if not weights.is_file() and not file.is_file():
        return None
    try:
        return parse(Shipped, json.loads(file.read_text()), str(file))
    except (OSError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{file} cannot be read ({error})") from None


def difference(
    shipped: Shipped, recipe: Recipe, network: NetworkConfig, training: TrainingConfig
) -> str | None:
    """The first key in which a build differs from what made shipped weights, or ``None``."""
    if shipped.recipe != recipe.name:
        return "recipe"
    try:
        made = parse_network(shipped.network, "network")
    except ConfigError:  # an unknown family or key
        return "network"
    pairs = (("network", made, network), ("training", shipped.training, training))
    for section, old, new in pairs:
        before, now = old.model_dump(), new.model_dump()
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                return f"{section}.{key}"
    return None


def take(
    weights: Path, recipe: Recipe, network: NetworkConfig, training: TrainingConfig
) -> tuple[ResidualNetwork, list[Epoch]] | None:
    """The network that a build would train, from shipped weights; ``None`` if there are none.

    Raises:
        CheckpointError: If they are of another making, are damaged, or do not answer as they did
            when they were made.
    """
    shipped = read_shipped(weights)
    if shipped is None:
        return None
    if key := difference(shipped, recipe, network, training):
        raise CheckpointError(f"{weights} was made with another {key}")
    if data_hash(recipe.draw("train")) != shipped.data_sha256:
        raise CheckpointError(f"{weights} was made with other rows of {recipe.name}")
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing")
    if sha256_of(weights) != shipped.weights_sha256:
        raise CheckpointError(f"{weights} is damaged: its hash is not the one in its JSON")
    trained = load_network(weights, network)
    test = recipe.draw("test")
    share = accuracy(trained, Samples(test.inputs[:TRIED_ROWS], test.labels[:TRIED_ROWS]))
    if abs(share - shipped.accuracy) > TRIED_TOLERANCE:
        raise CheckpointError(
            f"{weights} answers {share:.1%} of the test rows, expected {shipped.accuracy:.1%}"
        )
    return trained, shipped.history()


def data_hash(samples: Samples) -> str:
    """Hex SHA-256 of rows [N, *inputs] float32 and classes [N] int64, in their order."""
    digest = hashlib.sha256(repr(tuple(samples.inputs.shape)).encode())
    for tensor in (samples.inputs, samples.labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _dumps(about: Shipped) -> str:
    # One line for each key and layer, so that diffs are readable.
    values = about.model_dump(mode="json")
    gradients = values.pop("gradients")
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in values.items()]
    layers = ",\n".join(f"    {json.dumps(k)}: {_numbers(v)}" for k, v in gradients.items())
    return "{\n" + ",\n".join([*lines, f'  "gradients": {{\n{layers}\n  }}']) + "\n}\n"


def _numbers(values: Sequence[float]) -> str:
    return json.dumps([float(f"{value:.6g}") for value in values])
