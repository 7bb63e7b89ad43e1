"""Checks of an archive's entries before anything is unpacked."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

# Weights hardly compress, JSON by about ten; a higher ratio is an attack on the disk.
MOST_TIMES = 100
FREE_BYTES = 16 << 20
MOST_ENTRIES = 10_000


def require_harmless(content: zipfile.ZipFile, archive: Path) -> None:
    """Check the names, the kinds and the sizes of all entries.

    Args:
        content: Of the archive.
        archive: Where it came from.

    Raises:
        ValueError: Naming the entry that would be written elsewhere, twice or without end.
    """
    entries = content.infolist()
    if len(entries) > MOST_ENTRIES:
        raise ValueError(f"it has {len(entries)} entries, at most {MOST_ENTRIES} are unpacked")
    seen = set[str]()
    for one in entries:
        name = one.orig_filename
        parts = name.rstrip("/").split("/")
        if "\\" in name or "\0" in name or {"", ".", ".."} & set(parts) or ":" in parts[0]:
            raise ValueError(f"{name!r} would be written outside of its folder")
        if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{name!r} is neither a file nor a folder")
        if name in seen:
            raise ValueError(f"{name!r} is in it twice")
        seen.add(name)
    size, most = sum(one.file_size for one in entries), MOST_TIMES * archive.stat().st_size
    if size > most + FREE_BYTES:
        raise ValueError(f"it would take {size} bytes, more than {MOST_TIMES} times its own size")
