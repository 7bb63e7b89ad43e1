"""Opening the preprocessing of an artifact."""

from __future__ import annotations

from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.preprocessing.config import Preprocessing
from skipserve.preprocessing.preprocessor import Preprocessor


def open_preprocessor(artifact: Artifact) -> Preprocessor | None:
    """The preprocessor of an artifact; ``None`` if the model takes only tensors.

    Raises:
        ArtifactError: If a file that it needs cannot be read.
        LaunchError: If a library that it needs is not installed.
    """
    config = artifact.manifest.preprocessing
    return None if config is None else preprocessor_of(config, artifact.directory)


def preprocessor_of(config: Preprocessing, directory: Path) -> Preprocessor:
    """A preprocessor for files in a directory that is not an artifact yet."""
    # Imported here, because each kind needs a library of its own.
    if config.kind == "picture":
        from skipserve.preprocessing.pictures import Pictures

        return Pictures(config)
    from skipserve.preprocessing.text import Texts

    return Texts(config, directory)
