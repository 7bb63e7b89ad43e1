"""Every place in a value that JSON can hold, for tests that put something else there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a value: what holds it, and its key there."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in list(pairs):
            yield value, key
            yield from places(one)
