"""Files of API keys."""

from __future__ import annotations

from pathlib import Path

FIRST, SECOND, THIRD = "first-0123456789abcdef", "second-0123456789abcdef", "third-0123456789abc"


def write(file: Path, *keys: str) -> None:
    """As somebody does who rotates keys: whole or not at all."""
    fresh = file.with_suffix(".new")
    fresh.write_text("# keys of the tests\n\n" + "\n".join(keys) + "\n")
    fresh.chmod(0o600)
    fresh.replace(file)
