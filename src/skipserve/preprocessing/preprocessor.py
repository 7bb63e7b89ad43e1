"""What preprocessing gives: tensors for values, and the tokens of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from numpy.typing import NDArray


class Preprocessor(Protocol):
    """Turns values as clients send them into tensors."""

    def __call__(self, values: Sequence[object], first: int = 0) -> Mapping[str, NDArray[Any]]:
        """One row of each input for each value.

        Args:
            values: At least one, as JSON gave them, or bytes.
            first: Number of the first, for the error.

        Returns:
            By name of the input [N, …]; rows of free sizes are padded to the longest.

        Raises:
            InputError: Naming the row that is no such value.
        """
        ...


class Token(msgspec.Struct, frozen=True):
    """A token with the fields of text-embeddings-inference.

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
        """The tokens of each text, with or without special tokens.

        Raises:
            InputError: Naming the row that is no text.
        """
        ...
