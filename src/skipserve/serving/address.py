"""Where a service listens, and whether it can."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from skipserve.errors import LaunchError


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: Address of the inference and the metrics port.
        port: Inference port; TorchServe's own metrics are two above it.
        metrics_port: Port of ``/metrics``, ``/ready`` and ``/live``.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    metrics_port: int = 9464


def require_free(host: str, port: int, setting: str) -> None:
    """Check that nothing listens on a port.

    Raises:
        LaunchError: Naming the setting that moves it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise LaunchError(
                f"cannot listen on {host}:{port} ({error}); end what listens there, "
                f"or set {setting.split()[0]} to another port"
            ) from None


def free_ports() -> tuple[int, int]:
    """Two loopback ports that nothing listens on now."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
