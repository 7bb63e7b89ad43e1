"""What evidence holds for: the files that ran, where they ran, and what was counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.asked import Precision
from skipserve.artifacts.certificates import to_json
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import ArtifactError
from skipserve.slices import OTHER, Slices


def binding_of(
    manifest: Manifest,
    candidates: NDArray[np.float32],
    files: Mapping[str, str],
    precision: Precision,
    provider: str,
    of_slice: str = "",
) -> str:
    """A hash of everything that the counts of an artifact depend on, in hex.

    Args:
        manifest: Of the artifact; with a router.
        candidates: Thresholds [candidates, decisions], from careful to bold.
        files: The sha256 of every file that runs, by name.
        precision: Theirs.
        provider: Where they run.
        of_slice: Of the traffic that the counts are of; "" is all of it.

    Raises:
        ArtifactError: If there is no router.
    """
    spec = manifest.router
    if spec is None:
        raise ArtifactError(f"{manifest.name} has no router: there is nothing to earn")
    about = {
        "model": manifest.model,
        "files": dict(sorted(files.items())),
        "precision": precision,
        "provider": provider,
        "candidates": [[to_json(one) for one in row] for row in candidates.tolist()],
        "guard_limit": spec.guard_limit,
        "signal": spec.signal,
        "policy": spec.policy,
        "task": manifest.task.model_dump(mode="json"),
        "signature": manifest.signature.model_dump(mode="json"),
        "exits": [one.model_dump(mode="json") for one in spec.exits],
        # What the same file makes of a text or a picture depends on its settings.
        "preprocessing": manifest.preprocessing and manifest.preprocessing.model_dump(mode="json"),
        "risks": spec.risks,
        "level": spec.earned_level,
    }
    if of_slice:
        about["slice"] = _slice(spec.slices, of_slice)
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _slice(slices: Slices, name: str) -> dict[str, object]:
    """What a slice is: one that is declared does not change with the others, the rest does."""
    about: dict[str, object] = {"parameter": slices.parameter, "value": name}
    return about | ({"but": sorted(slices.values)} if name == OTHER else {})
