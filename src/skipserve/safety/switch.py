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
_WIDTH = 1024
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
class Standing:
    """What the workers of a model may do.

    Attributes:
        state: Of the router.
        epoch: Of evidence; rows that are drawn from now on count for it.
        in_force: For each risk of the model, in its order, the place of the candidate that may be
            used, or ``None`` for full depth. ``None`` altogether: what the artifact's own
            certificates say.
        eager: Whether every row that leaves the router on gives evidence, whatever is in force.
        proposals: The ladders that the places in force are of, by name, in the order of the risks;
            empty where all are the artifact's own.
        proposal: The ladder that evidence is judged by.
        proposing: Whether rows that are drawn propose, and are no evidence.
    """

    state: SwitchState = "on"
    epoch: int = 0
    in_force: tuple[int | None, ...] | None = None
    eager: bool = False
    proposals: tuple[str, ...] = ()
    proposal: str = ""
    proposing: bool = False

    @property
    def places(self) -> tuple[tuple[int, str] | None, ...] | None:
        """Places in force, each with the ladder that it is of."""
        if self.in_force is None:
            return None
        ladders = self.proposals or ("",) * len(self.in_force)
        pairs = zip(self.in_force, ladders, strict=True)
        return tuple(None if place is None else (place, ladder) for place, ladder in pairs)


# What a damaged file says: nothing may be skipped.
DAMAGED = Standing("disabled", in_force=())


class Switch:
    """One model's switch.

    Args:
        file: Made, in state ``on``, if it is not there.
    """

    def __init__(self, file: Path) -> None:
        # Never through a link: the command line may run as a user who can write elsewhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(file, flags, 0o600)
        self._read, self._standing = b"", DAMAGED
        with self.held():
            if not os.fstat(self._descriptor).st_size:
                self.tell(Standing())

    def standing(self) -> Standing:
        """What may be done now; nothing if the file is damaged. Takes about a microsecond."""
        line = os.pread(self._descriptor, _WIDTH, 0)
        if line != self._read:
            self._standing = self._again(line)
            self._read = line
        return self._standing

    def tell(self, standing: Standing) -> None:
        """Say what may be done from now on."""
        os.pwrite(self._descriptor, _line(standing), 0)

    def state(self) -> SwitchState:
        """The state now; ``disabled`` if the file is damaged."""
        return self.standing().state

    def throw(self, state: SwitchState) -> None:
        """Set the state, and leave the rest as it is."""
        self.tell(replace(self.standing(), state=state))

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

    def _again(self, line: bytes) -> Standing:
        """What a line says; it is read again while it looks like half of one."""
        for _ in range(_ATTEMPTS):
            standing = _parsed(line)
            if standing is not None:
                return standing
            line = os.pread(self._descriptor, _WIDTH, 0)
        return DAMAGED


class AlwaysOn(Switch):
    """The switch of a model that nobody watches over."""

    def __init__(self) -> None:
        pass

    def standing(self) -> Standing:
        """On, with the certificates of the artifact."""
        return _ALWAYS


_ALWAYS = Standing()


def _line(standing: Standing) -> bytes:
    places = "="
    if standing.in_force is not None:
        places = ",".join("-" if one is None else str(one) for one in standing.in_force) or "."
    share = "all" if standing.eager else "some"
    ladders = ",".join(one or "-" for one in standing.proposals) or "."
    use = "propose" if standing.proposing else "prove"
    words = (standing.state, standing.epoch, places, share, ladders, standing.proposal or "-", use)
    text = "".join(f"{word} " for word in words).encode()
    line = text + f"{zlib.crc32(text):08x}".encode()
    if len(line) >= _WIDTH:
        raise ValueError(f"a switch holds {_WIDTH} bytes, got {len(line)}")
    return line.ljust(_WIDTH - 1) + b"\n"


def _parsed(line: bytes) -> Standing | None:
    try:
        text, _, check = line.decode("ascii").rstrip().rpartition(" ")
        if int(check, 16) != zlib.crc32(f"{text} ".encode()):
            return None
        state, epoch, places, share, ladders, proposal, use = text.split(" ")
        in_force: tuple[int | None, ...] | None = None
        if places == ".":
            in_force = ()
        elif places != "=":
            in_force = tuple(None if one == "-" else int(one) for one in places.split(","))
        proposals = () if ladders == "." else tuple(map(_named, ladders.split(",")))
        if proposals and (in_force is None or len(proposals) != len(in_force)):
            return None
        return Standing(
            *(_LETTERS[state[0]], int(epoch), in_force, share == "all"),
            *(proposals, _named(proposal), use == "propose"),
        )
    except (ValueError, KeyError):
        return None


def _named(ladder: str) -> str:
    return "" if ladder == "-" else ladder


def switch_of(model: str) -> Switch:
    """The switch the launcher gave the workers of a model; always on without a launcher."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Switch(Path(directory) / model) if directory else AlwaysOn()
