"""The switch of a model's router: who may skip now, as a file the launcher and the workers share.

It is written in place and not replaced, so that it can still be written when the disk is full. It
is one short line with a checksum: whoever reads half of one reads again, and takes what stays
damaged for switched off. Whoever may write to the instance's directory (its own user) may write it.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

SwitchState = Literal["on", "fell_back", "disabled"]
_LETTERS: dict[str, SwitchState] = {"o": "on", "f": "fell_back", "d": "disabled"}
_WIDTH = 512
_ATTEMPTS = 3
# Tells the workers where the switches are.
DIRECTORY_VARIABLE = "SKIPSERVE_SWITCHES"

REASONS: dict[SwitchState, str] = {
    "on": "",
    "fell_back": "answers disagree with full depth more often than certified; a new certificate is "
    "being earned",
    "disabled": "switched off by the operator",
}


@dataclass(frozen=True)
class ControlState:
    """What the workers of a model may do.

    Attributes:
        state: Of the router.
        epoch: Of evidence; rows that are drawn from now on count for it.
        in_force: For each risk of the model, in its order, the place of the candidate that may be
            used, or ``None`` for full depth. ``None`` altogether: what the artifact's own
            certificates say.
        eager: Whether every row that leaves the router on gives evidence, whatever is in force.
    """

    state: SwitchState = "on"
    epoch: int = 0
    in_force: tuple[int | None, ...] | None = None
    eager: bool = False


# What a damaged file says: nothing may be skipped.
DAMAGED = ControlState("disabled", in_force=())


class Switch:
    """One model's switch.

    Args:
        file: Made, in state ``on``, if it is not there.
    """

    def __init__(self, file: Path) -> None:
        # Never through a link: the command line may run as a user who can write elsewhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(file, flags, 0o600)
        self._read, self._control = b"", DAMAGED
        with self.held():
            if not os.fstat(self._descriptor).st_size:
                self.write(ControlState())

    def control(self) -> ControlState:
        """The control state now, ``DAMAGED`` if the file is. Takes about a microsecond."""
        line = os.pread(self._descriptor, _WIDTH, 0)
        if line != self._read:
            self._control = self._again(line)
            self._read = line
        return self._control

    def write(self, control: ControlState) -> None:
        """Set the whole control state."""
        os.pwrite(self._descriptor, _line(control), 0)

    def state(self) -> SwitchState:
        """The state now; ``disabled`` if the file is damaged."""
        return self.control().state

    def set(self, state: SwitchState) -> None:
        """Set the state alone."""
        self.write(replace(self.control(), state=state))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the switch exclusively, to read it and set it in one step."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _again(self, line: bytes) -> ControlState:
        """What a line says; it is read again while it looks like half of one."""
        for _ in range(_ATTEMPTS):
            control = _parsed(line)
            if control is not None:
                return control
            line = os.pread(self._descriptor, _WIDTH, 0)
        return DAMAGED


class AlwaysOn(Switch):
    """The switch of a model without a launcher: always on."""

    def __init__(self) -> None:
        pass

    def control(self) -> ControlState:
        """On, with the certificates of the artifact."""
        return _ALWAYS


_ALWAYS = ControlState()


def _line(control: ControlState) -> bytes:
    places = "="
    if control.in_force is not None:
        places = ",".join("-" if one is None else str(one) for one in control.in_force) or "."
    share = "all" if control.eager else "some"
    text = f"{control.state} {control.epoch} {places} {share} ".encode()
    line = text + f"{zlib.crc32(text):08x}".encode()
    if len(line) >= _WIDTH:
        raise ValueError(f"a switch holds {_WIDTH} bytes, got {len(line)}")
    return line.ljust(_WIDTH - 1) + b"\n"


def _parsed(line: bytes) -> ControlState | None:
    try:
        state, epoch, places, share, check = line.decode("ascii").split()
        if int(check, 16) != zlib.crc32(f"{state} {epoch} {places} {share} ".encode()):
            return None
        in_force: tuple[int | None, ...] | None = None
        if places == ".":
            in_force = ()
        elif places != "=":
            in_force = tuple(None if one == "-" else int(one) for one in places.split(","))
        return ControlState(_LETTERS[state[0]], int(epoch), in_force, share == "all")
    except (ValueError, KeyError):
        return None


def switch_of(model: str) -> Switch:
    """The switch the launcher gave the workers of a model; always on without a launcher."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Switch(Path(directory) / model) if directory else AlwaysOn()
