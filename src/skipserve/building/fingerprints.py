"""Fingerprints of what a step depends on: files, sources of this package, and packages."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from skipserve.files import sha256_of
from skipserve.versions import version_if_installed

SOURCES = Path(__file__).parent.parent


def fingerprint(inputs: Any) -> str:
    """SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def hashes(files: tuple[Path, ...]) -> list[str | None]:
    """SHA-256 of files; ``None`` for those that do not exist."""
    return [sha256_of(file) if file.is_file() else None for file in files]


def sources(*places: str) -> list[str]:
    """Hashes of source files, and of all files in packages."""
    paths = [SOURCES / place for place in places]
    files = [[path] if path.suffix else sorted(path.rglob("*.py")) for path in paths]
    assert all(files), f"no module in {places}: what changed there would go unseen"
    return [sha256_of(file) for file in itertools.chain(*files)]


def versions(*packages: str) -> list[str | None]:
    """Versions of packages; ``None`` where one is not installed."""
    return [version_if_installed(name) for name in packages]
