"""Checkpoints: a directory with the weights, what made them, and the curves of the run.

checkpoint.safetensors   weights and input scaling (no pickle)
config.json              network, recipe, training, accuracy
epochs.csv               epoch,loss,accuracy
gradients.csv            epoch,layer,grad_norm
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from skipserve.errors import CheckpointError, ConfigError
from skipserve.files import replacing_directory, sha256_of
from skipserve.networks import NetworkConfig, ResidualNetwork, build_network, parse_network
from skipserve.schema import parse
from skipserve.training.config import TrainingConfig
from skipserve.training.history import WEIGHTS, Epoch, RunConfig, write_history


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its configuration.

    Attributes:
        network: In evaluation mode, on the CPU, FP32.
        run: Recipe, configuration and test accuracy of the run.
        sha256: Of the weights file, in hex.
    """

    network: ResidualNetwork
    run: RunConfig
    sha256: str


def save_checkpoint(
    directory: Path,
    network: ResidualNetwork,
    recipe: str,
    training: TrainingConfig,
    history: Sequence[Epoch],
) -> None:
    """Write a checkpoint directory, replacing an older one as a whole."""
    run = RunConfig(
        recipe=recipe,
        network=network.config.model_dump(mode="json"),
        training=training,
        accuracy=history[-1].accuracy,
    )
    with replacing_directory(directory, "config.json") as fresh:
        save_file(network.state_dict(), fresh / WEIGHTS)
        (fresh / "config.json").write_text(run.model_dump_json(indent=2) + "\n")
        write_history(fresh, history)


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory.

    Raises:
        CheckpointError: If files are missing, damaged, or do not belong together.
    """
    weights, config = directory / WEIGHTS, directory / "config.json"
    for file in (weights, config):
        if not file.is_file():
            raise CheckpointError(
                f"{directory} is not a checkpoint: {file.name} is missing; "
                "make one with `skipserve train`"
            )
    try:
        run = parse(RunConfig, json.loads(config.read_text()), str(config))
        described = parse_network(run.network, f"{config}: network")
    except (ConfigError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config} cannot be read: {error}") from None
    return Checkpoint(load_network(weights, described), run, sha256_of(weights))


def load_network(weights: Path, config: NetworkConfig) -> ResidualNetwork:
    """A network with the weights of a file, in evaluation mode.

    Raises:
        CheckpointError: If the file is damaged or holds another network.
    """
    network = build_network(config)
    try:
        network.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is damaged: {error}; train again") from None
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights} does not hold the network that is described beside it: {error}"
        ) from None
    return network.eval()
