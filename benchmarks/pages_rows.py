"""Rows of a measured table, read back from the Markdown that a benchmark prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

FORMAT = re.compile(r"\{(?::(?P<how>[^}]*))?\}(?P<after>.*)")


def rows_of(printed: str, measured: dict[str, Any]) -> list[list[Any]]:
    """The rows of the first printed table that has the columns of a measured one.

    Args:
        printed: What a benchmark printed, with other lines and tables around it.
        measured: The content of docs/measured/NAME.json.

    Raises:
        ValueError: If no table has as many columns and the same first one, or a cell is no number
            where the measured table has numbers.
    """
    columns = measured["columns"]
    for head, *rows in _tables(printed):
        if len(head) == len(columns) and head[0] == columns[0]:
            return [
                [_value(form, cell) for form, cell in zip(measured["formats"], row, strict=True)]
                for row in rows[1:]
            ]
    raise ValueError(f"no table of {len(columns)} columns begins with {columns[0]!r}")


def _tables(printed: str) -> Iterator[list[list[str]]]:
    for block in re.findall(r"(?:^ *\|.*(?:\n|\Z))+", printed, re.MULTILINE):
        lines = [line.strip()[1:-1] for line in block.splitlines()]
        yield [[cell.strip() for cell in line.split("|")] for line in lines]


def _value(form: str, cell: str) -> str | float:
    found = FORMAT.fullmatch(form)
    if found is None:
        raise ValueError(f"{form!r} is no format of one number")
    if found["how"] is None:
        return cell
    text = cell.removesuffix(found["after"]).replace(",", "")
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ValueError(f"{cell!r} is no number as {form!r}") from None
