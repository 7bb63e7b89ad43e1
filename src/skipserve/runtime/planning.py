"""Planning: which files of an artifact run on which provider."""

from __future__ import annotations

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import (
    FORMATS,
    AskedPrecision,
    AskedProvider,
    BackendName,
    Precision,
    Provider,
)
from skipserve.runtime.backends import pick_provider

# FP16 is emulated and slower than FP32 on a CPU, but faster on a GPU.
PRECISIONS: dict[Provider, Precision] = {"cpu": "fp32", "cuda": "fp16"}


def plan(
    artifact: Artifact,
    backend: BackendName,
    precision: AskedPrecision,
    provider: AskedProvider,
) -> tuple[Provider, Precision]:
    """The provider and precision that an engine with these settings would use.

    Raises:
        ArtifactError: If the artifact has no such files.
        LaunchError: If ``cuda`` was asked for and is not there.
    """
    picked = pick_provider(backend, provider)
    chosen = PRECISIONS[picked] if precision == "auto" else precision
    if precision == "auto" and not artifact.hashes(FORMATS[backend], chosen):
        have = [one.precision for one in artifact.manifest.files if one.format == FORMATS[backend]]
        chosen = have[0] if have else chosen
    artifact.require(FORMATS[backend], chosen)
    return picked, chosen
