"""What reports of the small model have, and how one is measured quietly."""

from __future__ import annotations

DEPTH = 4
FIGURES = {
    "certified", "cost-1", "cost-8", "disagreement", "accuracy", "depth", "inputs", "risk",
    "blocks",
}  # fmt: skip


def quiet(line: str) -> None:
    pass


def curve(found, name):
    return next(one for one in found.curves if one.name == name)
