"""The ready flag: set by the launcher, read by the processes that answer ``/ready``.

One byte in a file that is written in place, so that it can be said on a full disk, too.
"""

from __future__ import annotations

import os
from pathlib import Path

_YES, _NO = b"y", b"n"


class Ready:
    """The flag, shared by the processes of a service.

    Args:
        file: Made if it is not there, and then the service is not ready.
    """

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def set(self) -> None:
        """Set it."""
        os.pwrite(self._descriptor, _YES, 0)

    def clear(self) -> None:
        """Clear it."""
        os.pwrite(self._descriptor, _NO, 0)

    def is_set(self) -> bool:
        """Whether it is set. Takes about a microsecond."""
        return os.pread(self._descriptor, 1, 0) == _YES

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
