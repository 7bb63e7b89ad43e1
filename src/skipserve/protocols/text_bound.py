"""A bound on all texts of one request together, because tokenising blocks the worker."""

from __future__ import annotations

from collections.abc import Sequence

from skipserve.errors import InputError

# Characters: two seconds.
LARGEST_REQUEST = 2_000_000


def check_together(values: Sequence[object]) -> None:
    """Refuse a request whose texts are too long together.

    Args:
        values: As a client sent them; what is no text counts nothing here.

    Raises:
        InputError: If they have.
    """
    if sum(map(_length, values)) > LARGEST_REQUEST:
        raise InputError(
            "too_long",
            f"the texts have more than {LARGEST_REQUEST:,} characters together; send fewer or "
            "shorter ones",
        )


def _length(value: object) -> int:
    """Characters of a text or of the texts in it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, bytes):
        return len(value.decode(errors="ignore"))
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list | tuple) else 0
