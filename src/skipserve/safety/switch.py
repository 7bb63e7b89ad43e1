"""The switch of a model's router: who may skip now, as a file the launcher and the workers share.

It is written in place and not replaced, so that it can still be thrown when the disk is full; its
first letter alone says the state, so that no reader ever sees half of one. Whoever may write to the
instance's directory (its own user) may throw it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SwitchState = Literal["on", "fell_back", "disabled"]
_LETTERS: dict[bytes, SwitchState] = {b"o": "on", b"f": "fell_back", b"d": "disabled"}
_WIDTH = 10
# Tells the workers where the switches are.
DIRECTORY_VARIABLE = "SKIPSERVE_SWITCHES"

REASONS: dict[SwitchState, str] = {
    "on": "",
    "fell_back": "shadow runs disagree with full depth more often than certified",
    "disabled": "switched off by the operator",
}


class Switch:
    """One model's switch.

    Args:
        file: Made, in state ``on``, if it is not there.
    """

    def __init__(self, file: Path) -> None:
        # Never through a link: the command line may run as a user who can write elsewhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(file, flags, 0o600)
        with self.held():
            if not os.fstat(self._descriptor).st_size:
                self.throw("on")

    def state(self) -> SwitchState:
        """The state now; ``disabled`` if the file was tampered with. Takes about a microsecond."""
        return _LETTERS.get(os.pread(self._descriptor, 1, 0), "disabled")

    def throw(self, state: SwitchState) -> None:
        """Set the state."""
        os.pwrite(self._descriptor, state.ljust(_WIDTH - 1).encode() + b"\n", 0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from holding it: for whoever looks first and then throws it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


class AlwaysOn(Switch):
    """The switch of a model that nobody watches over."""

    def __init__(self) -> None:
        pass

    def state(self) -> SwitchState:
        """On."""
        return "on"


def switch_of(model: str) -> Switch:
    """The switch the launcher gave the workers of a model; always on without a launcher."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Switch(Path(directory) / model) if directory else AlwaysOn()
