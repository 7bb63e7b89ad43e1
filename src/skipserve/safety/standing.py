"""What is kept about a model's router beside its archives, or in the folder ``SKIPSERVE_STATE``.

What was earned is in a folder a model, see earning/. What an operator decided is kept until it is
decided otherwise: one file a model in ``.router-off``, which is there while skipping is off by
hand. That it is there is all that it says: what stands in it is for people.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from skipserve.artifacts.archive_names import model_of, store_of
from skipserve.safety.switch import Switch

STATE_VARIABLE = "SKIPSERVE_STATE"
FOLDER = ".router-off"

EVIDENCE = ".evidence"


def evidence_folder(archive: Path) -> Path:
    """Where what an archive's model has earned is kept, over restarts and by all its versions.

    Args:
        archive: Its file.
    """
    state = os.environ.get(STATE_VARIABLE)
    folder = Path(state) if state else store_of(archive)
    return folder.resolve() / EVIDENCE / model_of(archive)


def standing_order(archive: Path, name: str = "") -> Path:
    """The file that is there while the router of an archive's model is off by hand.

    Args:
        archive: Its file.
        name: What it is served as; the archive's own name by default.
    """
    state = os.environ.get(STATE_VARIABLE)
    folder = Path(state) if state else store_of(archive) / FOLDER
    return folder.resolve() / (name or archive.stem)


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


@dataclass(frozen=True)
class StandingOrderWatch:
    """A decision that is looked for while a model serves, where no command reaches its switch.

    Attributes:
        order: The file that keeps the router off while it is there.
        switch: In this process.
    """

    order: Path
    switch: Switch

    def look(self) -> None:
        """Throw the switch if the file has come or gone; what the alarm did stays done.

        Raises:
            OSError: If the file cannot be looked for.
        """
        given = self.order.exists()
        with self.switch.held():
            if self.switch.is_damaged:
                return  # for whoever knows what it said
            if given != (self.switch.state() == "disabled"):
                self.switch.set("disabled" if given else "on")
