"""Output for programs: one JSON object on stdout; everything else goes to stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import typer


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout; a number that is not finite is null."""
    text = msgspec.json.encode(value, enc_hook=_plain)
    typer.echo(msgspec.json.format(text, indent=2).decode())


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value)}")
