"""The host interface: a host knows sockets and processes, but not the answers of models."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from skipserve.artifacts.archive import Unpacked
from skipserve.hosts.instance import Instance


class Host(Protocol):
    """A server that answers HTTP requests with the models in the store of an instance.

    Attributes:
        name: As its users know it.
    """

    name: str

    def start(self, models: Sequence[Unpacked]) -> None:
        """Begin to listen, and open the models meanwhile.

        Raises:
            LaunchError: If something it needs is missing.
        """
        ...

    def keeps(self) -> Sequence[Path]:
        """Folders of its own whose content must stay while it runs."""
        ...

    def ready(self) -> bool:
        """Whether it answers on its port, within two seconds."""
        ...

    def workers(self) -> set[int]:
        """Processes that hold models now."""
        ...

    def ended(self) -> str:
        """Why it ended; empty while it runs."""
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
        """Leave the port to the successor, answer pending requests, and end every process.

        Clients that keep their connections are told with their next reply that it was the last.

        Args:
            stop: No more time is left to them once it is set.
        """
        ...

    def close(self) -> None:
        """Stop accepting, answer pending requests, and end every process."""
        ...
