"""Names of archives: the model, and for other versions the model and the version.

    STORE/NAME.mar               the version in force
    STORE/NAME.versions/N.mar    others

A model that is served is known by its *key*: its name, or ``NAME@N`` for a version that is served
beside the one that answers for the name. Metrics, logs and switches say the key.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = ".versions"
# TorchServe's description of an archive, inside of it.
ABOUT = "MAR-INF/MANIFEST.json"


def model_of(archive: Path) -> str:
    """The name of the model of an archive, from the path of the archive."""
    folder = archive.parent.name
    return folder.removesuffix(FOLDER) if folder.endswith(FOLDER) else archive.stem


def store_of(archive: Path) -> Path:
    """The model store that holds an archive."""
    folder = archive.parent
    return folder.parent if folder.name.endswith(FOLDER) else folder


def others_of(store: Path, name: str) -> Path:
    """The folder of a model's versions that are not in force."""
    return store / f"{name}{FOLDER}"


def key_of(name: str, version: int) -> str:
    """The key of a version that is served beside the version in force."""
    return f"{name}@{version}"


def split_key(key: str) -> tuple[str, str]:
    """The model's own name and, if the key has one, its version."""
    name, _, version = key.partition("@")
    return name, version


def version_of_content(about: bytes) -> int:
    """The version in the description of an archive; 1 for other archives, such as ``1.0``.

    Raises:
        ValueError: If it is no description.
    """
    try:
        said = str(json.loads(about)["model"].get("modelVersion", ""))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{ABOUT} has no model: {error}") from None
    return int(said) if said.isdecimal() and int(said) else 1
