"""Lines with a checksum, of which files are made that several processes write and read.

A line is JSON, a space, and the CRC-32 of the JSON in hex. The first says what the file is of. What
has no end yet is a line that is being written, or that a killed writer left: it says nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec

from skipserve.errors import StateError

# 2: counts may be of what an epoch proposed; whoever does not know that would add them up.
FORMAT = 2


class Header(msgspec.Struct, frozen=True):
    """What a file is of.

    Attributes:
        kind: ``counts``, ``rows``, ``ledger`` or ``earned``.
        binding: What its numbers hold for, see binding.py.
        format: Of the lines.
    """

    kind: str
    binding: str
    format: int = FORMAT


def line(content: Any) -> bytes:
    """One line that says this."""
    text = msgspec.json.encode(content)
    return text + f" {zlib.crc32(text):08x}\n".encode()


def contents(data: bytes, file: Path, expected: Header) -> list[bytes]:
    """What the lines of a file say behind its header; nothing if even that has no end yet.

    Raises:
        StateError: If a line is damaged, or the file is of something else or of a newer version.
    """
    whole = [_checked(one, file) for one in data[: data.rfind(b"\n") + 1].splitlines()]
    if not whole:
        return []
    try:
        header = msgspec.json.decode(whole[0], type=Header)
    except msgspec.MsgspecError:
        raise damaged(file, "its first line says nothing of it") from None
    if header.format > FORMAT:
        raise StateError(
            f"{file} is of format {header.format}, this skipserve reads {FORMAT}: a newer one "
            "wrote it; serve with that, or forget the evidence with `skipserve certificate --reset`"
        )
    if (header.kind, header.binding) != (expected.kind, expected.binding):
        raise StateError(
            f"{file} is of other files or of another kind than expected: it does not belong there; "
            "move it away, or forget the evidence with `skipserve certificate --reset`"
        )
    return whole[1:]


def append(descriptor: int, data: bytes, lasting: bool = False) -> None:
    """Write whole lines at the end of a file, or nothing: a disk that fills up leaves no half.

    Whoever calls is the only writer.

    Args:
        descriptor: Of the file.
        data: The lines.
        lasting: Whether they outlive a power failure once this has returned.

    Raises:
        OSError: If they could not be written.
    """
    end = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
        if lasting:
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def put_in_place(file: Path, data: bytes, lasting: bool = False) -> int:
    """Write a whole file beside its place and rename it there: readers see the old or the new one.

    Whoever calls is the only writer.

    Args:
        file: Its place.
        data: Its lines.
        lasting: As of :func:`append`.

    Returns:
        A descriptor of it, locked since before it was there.

    Raises:
        OSError: If it could not be written; then the old one is still there.
    """
    fresh = file.with_name(f".{file.name}")
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        append(descriptor, data, lasting)
        fresh.rename(file)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if lasting:
        sync_folder(file.parent)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power failure, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some sync no folder, and the name is there
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(file: Path, how: str) -> StateError:
    """The error for a file that says what nobody wrote."""
    return StateError(
        f"{file} is damaged: {how}; forget the evidence with `skipserve certificate --reset`"
    )


def _checked(text: bytes, file: Path) -> bytes:
    content, _, check = text.rpartition(b" ")
    if check != f"{zlib.crc32(content):08x}".encode():
        raise damaged(file, f"a line of {len(text)} bytes does not have its checksum")
    return content
