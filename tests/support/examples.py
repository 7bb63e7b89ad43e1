"""How many examples a test of ranges draws."""

from __future__ import annotations

from hypothesis import settings

# What hypothesis draws where nothing is said.
USUAL = 100


def examples(count: int) -> int:
    """A number of examples; fewer in proportion where the profile asks for fewer than usual."""
    return max(1, count * settings.default.max_examples // USUAL)
