"""Features of each host, as in docs/hosts.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOSTS = ("granian", "torchserve")
DOCUMENT = Path(__file__).parents[2] / "docs" / "hosts.md"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """The cells of the table by row and, in lower case, by column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))] for line in lines]
    header, _, *body = rows
    return {row[0]: dict(zip(map(str.lower, header[1:]), row[1:], strict=True)) for row in body}


TABLE = read_table(DOCUMENT.read_text())


def can(host: str, what: str) -> bool:
    """Whether the table says that a host can do something."""
    return TABLE[what][host].startswith("yes")


def require(host: str, what: str) -> None:
    """Skip a test of what a host cannot do, with the table's words."""
    if not can(host, what):
        pytest.skip(f"{what}: {host}: {TABLE[what][host]}")
