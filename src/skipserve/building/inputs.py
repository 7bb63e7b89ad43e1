"""Inputs of the steps of a build: what their outcome depends on."""

from __future__ import annotations

from typing import Any

from skipserve.building.buildfile import BuildFile
from skipserve.building.fingerprints import hashes
from skipserve.building.sourced import Sourced
from skipserve.errors import CheckpointError
from skipserve.sources.config import Brought
from skipserve.sources.inputs import files_of
from skipserve.training.history import WEIGHTS
from skipserve.training.shipped import difference, read_shipped


def shipped_hash(build: BuildFile) -> str | None:
    """SHA-256 of shipped weights that fit a build file, or ``None``."""
    # From the JSON beside the weights; a damaged copy must not cause training.
    trained = build.trained
    try:
        shipped = read_shipped(build.shipped)
    except CheckpointError:
        return None
    if shipped is None or difference(shipped, trained.recipe, trained.network, trained.training):
        return None
    return shipped.weights_sha256


def is_folder(build: BuildFile) -> bool:
    """Whether the network was brought as a Hugging Face folder."""
    return build.brought is not None and build.brought.source.folder is not None


def origin_inputs(build: BuildFile, sourced: Sourced) -> Any:
    """Everything that the origin of a build file depends on."""
    if build.brought is None:
        return hashes((build.checkpoint / WEIGHTS, build.checkpoint / "config.json"))
    return brought_inputs(build.brought, build, sourced)


def brought_inputs(brought: Brought, build: BuildFile, sourced: Sourced) -> Any:
    """Everything that a brought network and its rows depend on.

    Args:
        brought: As the build file has it, or without its tuned weights.
        build: The build file.
        sourced: Of the build file.
    """
    files = tuple(files_of(brought, build.root))
    return [brought.model_dump(mode="json"), hashes(files), sourced.module_weights]
