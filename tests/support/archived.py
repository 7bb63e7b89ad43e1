"""Archives made anew: as another version, or damaged."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from skipserve.artifacts.archive_names import ABOUT


def remade(
    archive: Path, fresh: Path, number: int, change: Callable[[str, bytes], bytes] | None = None
) -> Path:
    """The archive as another version of the model, with good checksums whatever is changed."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as new:
        for name in set(old.namelist()) - {"note"}:
            content = old.read(name)
            if name == ABOUT:
                about = json.loads(content)
                about["model"]["modelVersion"] = str(number)
                content = json.dumps(about).encode()
            new.writestr(name, content if change is None else change(name, content))
        new.writestr("note", str(number))  # or it would be no new version
    return fresh


def flip(archive: Path, name: str) -> None:
    """Flip a bit in the middle of a member's bytes as they lie in the archive."""
    with zipfile.ZipFile(archive) as content:
        member = content.getinfo(name)
    data = bytearray(archive.read_bytes())
    header = member.header_offset
    begins = header + 30 + int.from_bytes(data[header + 26 : header + 28], "little")
    begins += int.from_bytes(data[header + 28 : header + 30], "little")
    data[begins + member.compress_size // 2] ^= 0x10
    archive.write_bytes(data)
