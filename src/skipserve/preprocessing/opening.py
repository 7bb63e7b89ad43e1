"""Opening what an artifact says of its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.preprocessing.config import Preprocessing


class Preprocessor(Protocol):
    """Turns values as clients send them into tensors."""

    def __call__(self, values: Sequence[object]) -> Mapping[str, NDArray[Any]]:
        """One row of each input for each value.

        Args:
            values: At least one, as JSON gave them, or bytes.

        Returns:
            By name of the input [N, …]; rows of free sizes are padded to the longest.

        Raises:
            InputError: Naming the row that is no such value.
        """
        ...


class Token(msgspec.Struct, frozen=True):
    """A token as text-embeddings-inference tells it.

    Attributes:
        id: Its number.
        text: The part of the text that it stands for; its own name, if it stands for none.
        special: Whether it stands for no text.
        start: Where its part begins, in characters; ``None`` for a special one.
        stop: Behind its end.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@runtime_checkable
class TextPreprocessor(Protocol):
    """A preprocessor of texts."""

    def tokens(self, values: Sequence[object], special: bool) -> list[list[Token]]:
        """The tokens of each text, with special ones or without.

        Raises:
            InputError: Naming the row that is no text.
        """
        ...


def open_preprocessor(artifact: Artifact) -> Preprocessor | None:
    """What turns values into the tensors of a model; ``None`` if it takes nothing but tensors.

    Raises:
        ArtifactError: If a file that it needs cannot be read.
        LaunchError: If a library that it needs is not installed.
    """
    config = artifact.manifest.preprocessing
    return None if config is None else preprocessor_of(config, artifact.directory)


def preprocessor_of(config: Preprocessing, directory: Path) -> Preprocessor:
    """The same for files in a directory that is no artifact yet."""
    # Each kind brings a library that other models do without.
    if config.kind == "picture":
        from skipserve.preprocessing.pictures import Pictures

        return Pictures(config)
    from skipserve.preprocessing.text import Texts

    return Texts(config, directory)
