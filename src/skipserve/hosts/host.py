"""What listens. A host knows sockets and processes, and nothing of what a model answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from skipserve.artifacts.archive import Unpacked
from skipserve.hosts.instance import Instance


class Host(Protocol):
    """One way to answer HTTP requests with models that lie unpacked in an instance's store.

    Attributes:
        name: As its users know it.
    """

    name: str

    def start(self, models: Sequence[Unpacked]) -> None:
        """Begin to listen; the models are opened meanwhile.

        Raises:
            LaunchError: If something it needs is missing.
        """
        ...

    def keeps(self) -> Sequence[Path]:
        """Folders of its own whose content must stay while it runs."""
        ...

    def ready(self) -> bool:
        """Whether it answers on its port; takes two seconds at most."""
        ...

    def workers(self) -> set[int]:
        """Processes that hold models now."""
        ...

    def ended(self) -> str:
        """Why it does not run any more; empty while it does."""
        ...

    def successor(self, instance: Instance) -> Host:
        """Another one, not yet started, that will answer on the same port.

        Args:
            instance: The folders of its generation.

        Raises:
            LaunchError: If this host cannot be replaced while it serves.
        """
        ...

    def retire(self, stop: threading.Event) -> None:
        """Leave the port to the successor, answer what is on its way, and end every process.

        Clients that keep their connections are told with their next reply that it was the last.

        Args:
            stop: No more time is left to them once it is set.
        """
        ...

    def close(self) -> None:
        """Take no new requests, answer those on their way, and end every process."""
        ...
