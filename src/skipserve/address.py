"""The addresses of a service, and whether its ports are free."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skipserve.errors import LaunchError

LOOPBACK = "127.0.0.1"
# Loopback address of a service that listens on every address.
_REACHED_AT = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - nothing is bound here


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: Name or IP address of the inference and the metrics port; IPv6 with or without
            brackets.
        port: Inference port.
        metrics_port: Port of ``/metrics``, ``/ready`` and ``/live``.
    """

    host: str = LOOPBACK
    port: int = 8080
    metrics_port: int = 9464

    @property
    def inference_url(self) -> str:
        """Root of the inference port for a client on this machine."""
        return url_of(self.host, self.port)

    @property
    def metrics_url(self) -> str:
        """Root of the metrics port for a client on this machine."""
        return url_of(self.host, self.metrics_port)

    def ip(self) -> str:
        """The host as an IP address without brackets; IPv4 where a name has both.

        Raises:
            LaunchError: If it is neither an address nor a name that is known here.
        """
        try:
            if not self.host:
                raise ValueError("it is empty")
            found = socket.getaddrinfo(_bare(self.host), 0, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise _not_here(self.host, error) from None
        addresses = sorted(found, key=lambda one: one[0] != socket.AF_INET)
        return str(addresses[0][4][0])

    def is_loopback(self) -> bool:
        """Whether only this machine reaches it.

        Raises:
            LaunchError: If the host is neither an address nor a name that is known here.
        """
        return ipaddress.ip_address(self.ip().partition("%")[0]).is_loopback

    def require_free(self, others: Mapping[str, int]) -> str:
        """Check that every port can be listened on; the host as :meth:`ip` has it.

        Args:
            others: Ports on loopback that move with the inference port, by what takes them.

        Raises:
            LaunchError: Naming the setting to change.
        """
        ip = self.ip()
        if self.port == self.metrics_port:
            raise LaunchError(
                f"--port and --metrics-port are both {self.port}; choose another for one of them"
            )
        for what, port in others.items():
            if port == self.metrics_port:
                raise LaunchError(
                    f"--metrics-port is {port}, and {what} take that port beside --port "
                    f"{self.port}; choose another for one of the two"
                )
        require_free(ip, self.port, "SKIPSERVE_PORT")
        require_free(ip, self.metrics_port, "SKIPSERVE_METRICS_PORT")
        for port in others.values():
            require_free(LOOPBACK, port, "SKIPSERVE_PORT")
        return ip

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep both ports from other services that start at the same moment.

        Workers share their port (SO_REUSEPORT), and the kernel would let two services share it as
        well: each would answer some of the requests.

        Raises:
            LaunchError: Naming the setting to change.
        """
        ip = self.ip()
        with contextlib.ExitStack() as stack:
            settings = {"SKIPSERVE_PORT": self.port, "SKIPSERVE_METRICS_PORT": self.metrics_port}
            for setting, port in settings.items():
                stack.enter_context(_claim(ip, port, setting))
            yield


def url_of(host: str, port: int) -> str:
    """``http://HOST:PORT`` as a client on this machine reaches it, brackets included."""
    bare = _bare(host)
    bare = _REACHED_AT.get(bare, bare)
    return f"http://{in_url(bare)}:{port}"


def in_url(host: str) -> str:
    """A host as a URL has it: IPv6 addresses in brackets."""
    bare = _bare(host)
    return f"[{bare}]" if ":" in bare else bare


def family_of(ip: str) -> socket.AddressFamily:
    """The address family of an IP address."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def require_free(host: str, port: int, setting: str) -> None:
    """Check that a port can be listened on.

    Args:
        host: An IP address without brackets.
        port: The port.
        setting: The variable that moves it.

    Raises:
        LaunchError: Naming the setting to change.
    """
    try:
        with socket.socket(family_of(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise cannot_listen(host, port, setting, error) from None


def cannot_listen(host: str, port: int, setting: str, error: OSError) -> LaunchError:
    """The error for a port that cannot be bound.

    Args:
        host: An IP address without brackets.
        port: The port.
        setting: The variable that moves it.
        error: Of the attempt.
    """
    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
        return _not_here(host, error)
    remedy = (
        "end what listens there, or set"
        if error.errno == errno.EADDRINUSE
        else "this user may not; set"
    )
    return LaunchError(
        f"cannot listen on {in_url(host)}:{port} ({error.strerror}); "
        f"{remedy} {setting} to another port"
    )


def free_ports() -> tuple[int, int]:
    """Two loopback ports that nothing listens on now."""
    with socket.socket() as one, socket.socket() as two:
        one.bind((LOOPBACK, 0))
        two.bind((LOOPBACK, 0))
        return one.getsockname()[1], two.getsockname()[1]


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _claim(ip: str, port: int, setting: str) -> socket.socket:
    # An abstract socket: local to one network namespace, as ports are, and gone with its process.
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            claim.bind(f"\0skipserve {ip} {port}")
        except OSError as error:
            claim.close()
            raise cannot_listen(ip, port, setting, error) from None
    return claim


def _not_here(host: str, error: Exception) -> LaunchError:
    said = getattr(error, "strerror", None) or error
    return LaunchError(
        f"cannot listen on {host!r} ({said}); set --host to an address of this machine, such as "
        "127.0.0.1, ::1, or 0.0.0.0 or :: for all"
    )
