"""Rates in words."""

from __future__ import annotations


def percent(value: float) -> str:
    """A chosen rate, such as a risk, with three significant digits at most."""
    return f"{100 * value:.3g}%"
