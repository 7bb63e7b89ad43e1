"""The exceptions skipserve raises on purpose.

    SkipserveError
    ├── ConfigError        a TOML file, a flag or a network configuration is wrong
    ├── TrainingDiverged   the loss stopped being finite; nothing was saved
    ├── CheckpointError    a checkpoint is missing, damaged or of another kind
    ├── CutError           a graph cannot be read, or cut where everything flows through
    ├── ArtifactError      an artifact is missing, damaged or foreign
    │   └── ParityError    an exported file does not compute what the network computes
    ├── StateError         what was kept of a model's traffic is damaged, foreign or too new
    ├── LoadTestError      a load test cannot be run or its report cannot be read
    ├── InputError         what a client sent; carries a code and, if known, the row
    ├── LaunchError        this machine cannot do it (port taken, package missing, Java too old, …)
    └── WatchError         there is no service to watch where one was expected

Every message says what was wrong, what was expected and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import PurePath


class SkipserveError(Exception):
    """Root of everything raised on purpose; the command line prints it without a traceback."""


class ConfigError(SkipserveError):
    """A configuration value, key or flag is wrong."""


class TrainingDiverged(SkipserveError):
    """The training loss stopped being finite."""


class CheckpointError(SkipserveError):
    """A checkpoint is missing, damaged or of another kind."""


class ArtifactError(SkipserveError):
    """An artifact is missing, damaged or foreign."""


class CutError(SkipserveError):
    """A network's graph cannot be read, or cannot be cut into stages."""


class ParityError(ArtifactError):
    """An exported file disagrees with the network it was exported from."""


class LaunchError(SkipserveError):
    """This machine cannot do what was asked, as it is."""


class StateError(SkipserveError):
    """Earned state is damaged, of another file, or of a newer version."""


class WatchError(SkipserveError):
    """No service answers with its metrics where one was expected."""


class LoadTestError(SkipserveError):
    """A load test cannot be run, or a report of one cannot be read."""


# Longest part of a message that quotes what a client sent, in characters.
_LONGEST_QUOTED = 40
# Longest message to a client, in characters: it may quote what the client sent.
LONGEST_MESSAGE = 1_000


class InputError(SkipserveError):
    """A request that cannot be answered.

    Args:
        code: A stable, machine-readable word such as ``"wrong_shape"``.
        message: What was wrong, what was expected and what to do; cut after
            :data:`LONGEST_MESSAGE` characters.
        row: Index of the offending row in the request, if one row is to blame.
    """

    def __init__(self, code: str, message: str, row: int | None = None) -> None:
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[: LONGEST_MESSAGE - 1]}…"
        super().__init__(message)
        self.code = code
        self.message = message
        self.row = row


def quoted(value: object) -> str:
    """What a client sent as it stands in a message, cut where it is long.

    So that what was expected stands behind it, whatever its length.
    """
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTED else f"{text[:_LONGEST_QUOTED]}…"


# How alike two names are, from 0 to 1, if one is a slip of the other.
_ALIKE = 0.65
# Names that a hint lists.
_LISTED = 5


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or ``None`` if none is near.

    Of paths the last parts are compared, without the ending of their kind: what leads there,
    and ``.toml``, make any two alike. A name that begins as the one given does is nearer than any
    other.

    Args:
        name: As it was given; it may be a path.
        names: Those that exist.
    """
    stems: dict[str, str] = {}
    for one in sorted(set(names)):
        stems.setdefault(_stem(one), one)
    given = _stem(name)
    begun = [stem for stem in stems if len(given) > 2 and stem.startswith(given)]
    near = difflib.get_close_matches(given, begun, n=1, cutoff=0) or (
        difflib.get_close_matches(given, stems, n=1, cutoff=_ALIKE)
    )
    return stems[near[0]] if near else None


def _stem(name: str) -> str:
    """The last part of a path, without the ending of a build file or an archive."""
    return (PurePath(name).name or name).removesuffix(".toml").removesuffix(".mar")


def suggestion(name: str, names: Iterable[str], otherwise: str) -> str:
    """A hint for an unknown name.

    Args:
        name: As it was given; it may be a path.
        names: Those that exist.
        otherwise: What to do where none does.

    Returns:
        The nearest name as a question, the first names where none is near, or ``otherwise``.
    """
    have = sorted(set(names))
    near = nearest(name, have)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"there are {listed(have)}" if have else otherwise


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: at most five, and how many more there are."""
    more = len(names) - _LISTED
    if more > 1:  # one more name is as short as saying so
        return f"{', '.join(names[:_LISTED])} and {more} more"
    return ", ".join(names)
