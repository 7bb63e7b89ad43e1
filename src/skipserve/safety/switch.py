"""The switch of a model's router: who may skip now, as a file the launcher and the workers share.

It is written in place and not replaced, so that it can still be written when the disk is full. It
is one line with a checksum, that says what holds for each slice of the traffic: whoever reads half
of one reads again, and takes what stays damaged for switched off. Whoever may write to the
instance's directory (its own user) may write it.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from skipserve.earning.ladder import Place, Places
from skipserve.errors import StateError

SwitchState = Literal["on", "fell_back", "disabled"]
_LETTERS: dict[str, SwitchState] = {"o": "on", "f": "fell_back", "d": "disabled"}
# Bytes of the file; of many slices and risks it has more, see _width_for.
_WIDTH = 1024
_WIDEST = 256 << 10
# A slice that falls back takes some more letters to say so, and there may be no room to grow then.
_SPARE = 64
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
    """What the workers of a model may do with one slice of its traffic.

    Attributes:
        state: Of the router there.
        epoch: Of evidence; rows that are drawn from now on count for it.
        in_force: For each risk of the model, in its order, the place of the candidate that may be
            used, or ``None`` for full depth. ``None`` altogether: what the artifact's own
            certificates say.
        own: Whether these hold beside the places in force.
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
    own: bool = False

    @property
    def places(self) -> Places | None:
        """Places in force, each with the ladder that it is of."""
        if self.in_force is None:
            return None
        ladders = self.proposals or ("",) * len(self.in_force)
        pairs = zip(self.in_force, ladders, strict=True)
        return tuple(None if place is None else Place(place, ladder) for place, ladder in pairs)


# What a damaged file says: nothing may be skipped.
DAMAGED = ControlState("disabled", in_force=())
# And what one says of a slice that it does not know: workers and launcher have other slices now.
UNKNOWN = ControlState(in_force=())


class Switch:
    """One model's switch.

    Args:
        file: Made, in state ``on``, if it is not there.
    """

    def __init__(self, file: Path) -> None:
        # Never through a link: the command line may run as a user who can write elsewhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(file, flags, 0o600)
        self._width = _WIDTH
        self._read: bytes = b""
        self._controls: Mapping[str, ControlState] = {}
        with self.held():
            if not os.fstat(self._descriptor).st_size:
                self.write(ControlState())

    def controls(self) -> Mapping[str, ControlState]:
        """What may be done now, by slice; none if the file is damaged. Takes about a microsecond.

        It is the same object until something else is told.
        """
        if self._descriptor < 0:
            return {}
        line = self._line()
        if line != self._read:
            self._controls = self._again(line)
            self._read = line
        return self._controls

    def control(self, of_slice: str = "") -> ControlState:
        """What may be done now with a slice of the traffic; nothing if the file is damaged.

        Args:
            of_slice: Its name; "" where traffic is one whole.
        """
        return control_of(self.controls(), of_slice)

    @property
    def is_damaged(self) -> bool:
        """Whether it says nothing that can be read: nothing is skipped then."""
        return not self.controls()

    def write(self, control: ControlState, of_slice: str = "") -> None:
        """Say what may be done from now on with a slice, and leave the others as they are."""
        self.tell({**self.controls(), of_slice: control})

    def keep(self, slices: Collection[str]) -> None:
        """Forget all slices but these; nothing may be skipped in those that were not there."""
        before = self.controls()
        if before.keys() != set(slices):
            self.tell({one: control_of(before, one) for one in slices})

    def state(self) -> SwitchState:
        """The state of the slice that stands worst; ``disabled`` if the file is damaged."""
        return worst(one.state for one in self.controls().values())

    def set(self, state: SwitchState) -> None:
        """Set the state of all slices, and leave the rest as it is."""
        controls = self.controls() or {"": DAMAGED}
        self.tell({of: replace(one, state=state) for of, one in controls.items()})

    def tell(self, controls: Mapping[str, ControlState]) -> None:
        """Say what may be done from now on with each slice.

        Raises:
            StateError: If it has no room for so much.
            OSError: If it cannot be written.
        """
        line = _line(controls)
        width = max(os.fstat(self._descriptor).st_size, _width_for(controls, len(line)))
        os.pwrite(self._descriptor, line.ljust(width - 1) + b"\n", 0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the switch exclusively, to read it and set it in one step."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; nothing may be skipped by it any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _again(self, line: bytes) -> Mapping[str, ControlState]:
        """What a line says; it is read again while it looks like half of one."""
        for _ in range(_ATTEMPTS):
            controls = _parsed(line)
            if controls is not None:
                return controls
            line = self._line()
        return {}

    def _line(self) -> bytes:
        line = os.pread(self._descriptor, self._width, 0)
        while len(line) == self._width < _WIDEST and not line.endswith(b"\n"):
            self._width *= 2
            line = os.pread(self._descriptor, self._width, 0)
        return line


class Controls(Protocol):
    """What a worker sees of a switch."""

    def controls(self) -> Mapping[str, ControlState]:
        """What may be done now, by slice."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class AlwaysOn:
    """The switch of a model without a launcher: always on."""

    def controls(self) -> Mapping[str, ControlState]:
        """On, with the certificates of the artifact."""
        return _ALWAYS

    def close(self) -> None:
        """Nothing is open."""


_ALWAYS: Mapping[str, ControlState] = {"": ControlState()}


def control_of(controls: Mapping[str, ControlState], of_slice: str) -> ControlState:
    """What may be done with a slice; of one that the file does not know, nothing is in force."""
    found = controls.get(of_slice)
    if found is not None:
        return found
    off = not controls or worst(one.state for one in controls.values()) == "disabled"
    return DAMAGED if off else UNKNOWN


def worst(states: Iterable[SwitchState]) -> SwitchState:
    """Of the states of several slices, the one that lets the least be skipped."""
    return max(states, key=list(REASONS).index, default="disabled")


def _width_for(controls: Mapping[str, ControlState], length: int) -> int:
    width = _WIDTH
    while width <= length + _SPARE * len(controls):
        width *= 2
    if width > _WIDEST:
        raise StateError(
            f"the switch of a model holds {_WIDEST} bytes, and {length} were to be written; "
            "declare fewer slices or risks"
        )
    return width


def _line(controls: Mapping[str, ControlState]) -> bytes:
    text = " ; ".join(_told(one, of) for of, one in controls.items()).encode()
    return text + f" {zlib.crc32(text):08x}".encode()


def _told(control: ControlState, of_slice: str) -> str:
    places = "=" if control.in_force is None or control.own else ""
    if control.in_force is not None:
        places += ",".join("-" if one is None else str(one) for one in control.in_force) or "."
    share = "all" if control.eager else "some"
    ladders = ",".join(one or "-" for one in control.proposals) or "."
    use = "propose" if control.proposing else "prove"
    words = (control.state, control.epoch, places, share, ladders, control.proposal or "-", use)
    return " ".join(map(str, (*words, of_slice))).rstrip()


def _parsed(line: bytes) -> Mapping[str, ControlState] | None:
    try:
        text, _, check = line.decode("ascii").rstrip().rpartition(" ")
        if int(check, 16) != zlib.crc32(text.encode()):
            return None
        return dict(_one(part.split()) for part in text.split(" ; "))
    except (ValueError, KeyError):
        return None


def _one(words: list[str]) -> tuple[str, ControlState]:
    state, epoch, places, share, ladders, proposal, use, *name = words
    in_force: tuple[int | None, ...] | None = None
    own, places = places[0] == "=", places.removeprefix("=")
    if places == ".":
        in_force = ()
    elif places:
        in_force = tuple(None if one == "-" else int(one) for one in places.split(","))
    proposals = () if ladders == "." else tuple(map(_named, ladders.split(",")))
    if proposals and (in_force is None or len(proposals) != len(in_force)):
        raise ValueError("as many ladders as places in force were expected")
    (of_slice,) = name or ("",)
    return of_slice, ControlState(
        *(_LETTERS[state[0]], int(epoch), in_force, share == "all"),
        *(proposals, _named(proposal), use == "propose", own and in_force is not None),
    )


def _named(ladder: str) -> str:
    return "" if ladder == "-" else ladder


def switch_of(model: str) -> Controls:
    """The switch the launcher gave the workers of a model; always on without a launcher."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Switch(Path(directory) / model) if directory else AlwaysOn()
