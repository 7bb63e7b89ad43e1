"""What is kept about a model's router beside its archives, or in the folder ``SKIPSERVE_STATE``.

What was earned is in a folder a model, see earning/. What an operator decided is kept until it is
decided otherwise: one file a model in ``.router-off``, which is there while skipping is off by
hand. That it is there is all that it says: what stands in it is for people. Services that share the
folder follow its files while they serve.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from skipserve.artifacts.archive_names import model_of, store_of
from skipserve.errors import StateError
from skipserve.safety.switch import Switch

STATE_VARIABLE = "SKIPSERVE_STATE"
FOLDER = ".router-off"

EVIDENCE = ".evidence"

logger = logging.getLogger(__name__)


def evidence_folder(archive: Path) -> Path:
    """Where what an archive's model has earned is kept, over restarts and by all its versions.

    Args:
        archive: Its file.
    """
    return _folder(archive) / EVIDENCE / model_of(archive)


def standing_order(archive: Path, name: str = "") -> Path:
    """The file that is there while the router of an archive's model is off by hand.

    Args:
        archive: Its file.
        name: What it is served as; the archive's own name by default.
    """
    return _folder(archive) / FOLDER / (name or archive.stem)


def give_order(file: Path) -> None:
    """Keep a router off from now on.

    Raises:
        OSError: If the file cannot be made; then a restart forgets that it is off.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with contextlib.suppress(OSError):  # that it is there is the order, also where no word fits
        file.write_text(f"switched off {now}\n")


def lift_order(file: Path) -> None:
    """Keep it off no longer.

    Raises:
        OSError: If the file is there and cannot be removed; then it is off again after a restart.
    """
    file.unlink(missing_ok=True)


@dataclass
class StandingOrderWatch:
    """An order that is looked for while its model serves.

    Only its coming and going count. What a command or the alarm did to the switch stays done.

    Attributes:
        model: What it is about.
        order: The file that keeps the router off while it is there.
        switch: Of the model's router.
        given: Whether the file was there when it was last looked for.
    """

    model: str
    order: Path
    switch: Switch
    given: bool = False

    def look(self) -> None:
        """Throw the switch if the file has come or gone, unless it is thrown already.

        Raises:
            OSError: If the file cannot be looked for; then nothing is switched.
        """
        # Held, because a command throws the switch and makes the file in one step.
        with self.switch.held():
            given = is_given(self.order)
            if given == self.given or self.switch.is_damaged:
                return  # who throws a damaged one must know what it said
            self.given = given
            if given == (self.switch.state() == "disabled"):
                return
            self.switch.set("disabled" if given else "on")
        if given:
            logger.warning(
                "%s skips nothing: it was switched off by hand, and stays off until "
                "`skipserve router on %s`, or until %s is removed",
                *(self.model, self.model, self.order),
            )
        else:
            logger.warning("%s may skip again: %s was removed", self.model, self.order)


def follow_orders(watches: Mapping[str, StandingOrderWatch | None]) -> None:
    """Switch as the orders say that came or went since they were last looked for.

    Args:
        watches: Of each model, if it has a router.

    Raises:
        OSError: If one cannot be looked for, or its switch not thrown; the others were.
        StateError: The same.
    """
    problem: OSError | StateError | None = None
    for watch in watches.values():
        try:
            if watch is not None:
                watch.look()
        except (OSError, StateError) as error:
            problem = error
    if problem is not None:
        raise problem


def _folder(archive: Path) -> Path:
    state = os.environ.get(STATE_VARIABLE)
    return (Path(state) if state else store_of(archive)).resolve()


def is_given(file: Path) -> bool:
    """Whether an order is there.

    Raises:
        OSError: If that cannot be said.
    """
    # Not Path.exists(): to some versions of Python a volume that does not answer holds no file.
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
