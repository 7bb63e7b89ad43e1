"""Tuned weights in a file; they take the place of a network's own."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from skipserve.errors import CheckpointError


def save_tuned(module: nn.Module, file: Path) -> None:
    """Write the weights of a module; shared weights are written once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(module, str(file))


def load_tuned(module: nn.Module, file: Path) -> None:
    """Read weights into a module.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another network.
    """
    try:
        load_model(module, str(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{file} does not hold tuned weights of this network: {reason}; build anew"
        ) from None
