"""How archives are called: by model, and those of other versions by model and version.

A model that is served is known by its *key*: its name, or ``NAME@N`` for a version that is served
beside the current one. Metrics, logs, switches and replies say the key.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = ".versions"
# TorchServe's description of an archive, inside of it.
ABOUT = "MAR-INF/MANIFEST.json"


def key_of(archive: Path) -> str:
    """What a model is called that is served from an archive."""
    if archive.parent.name.endswith(FOLDER):
        return f"{archive.parent.name.removesuffix(FOLDER)}@{archive.stem}"
    return archive.stem


def name_of(key: str) -> str:
    """The model's own name."""
    return key.partition("@")[0]


def store_of(archive: Path) -> Path:
    """The folder of the current archives."""
    folder = archive.parent
    return folder.parent if folder.name.endswith(FOLDER) else folder


def version_of_content(about: bytes) -> int:
    """The version in an archive's description; 1 where it is none of ours.

    Raises:
        ValueError: If it is no JSON.
    """
    said = str(json.loads(about)["model"].get("modelVersion", ""))
    return int(said) if said.isdecimal() and int(said) else 1
