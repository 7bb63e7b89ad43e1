"""Directories that appear whole or not at all, and the hashes that tell what is in them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_directory(directory: Path) -> Iterator[Path]:
    """Yield a fresh directory that takes ``directory``'s place if the block ends well.

    On an exception the old directory is untouched and the new one gone. A reader sees the old
    or the new content, never a mixture; between the two renames it may briefly see neither.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and beside its target so that the rename stays on one file system.
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    old = fresh.with_name(fresh.name + ".old")
    try:
        yield fresh
        fresh.chmod(0o755)
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
