"""Settings of a host: sockets, processes, timeouts."""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skipserve.address import Address
from skipserve.errors import ConfigError
from skipserve.hosts.access import check_limit
from skipserve.hosts.client import BODY_S

ServerName = Literal["granian", "torchserve"]
# Names the file of the keys where no option does.
KEYS_VARIABLE = "SKIPSERVE_KEYS"


@dataclass(frozen=True)
class Tls:
    """The TLS certificate and key of a host.

    Attributes:
        certificate: A chain in PEM.
        key: Its private key in PEM.
    """

    certificate: Path
    key: Path

    def require(self) -> None:
        """Check that both can be read and belong together.

        Raises:
            ConfigError: Naming the option to mend.
        """
        for option, file in (("--tls-certificate", self.certificate), ("--tls-key", self.key)):
            try:
                begins = file.read_text(errors="replace").lstrip().startswith("-----BEGIN ")
            except OSError as error:
                raise ConfigError(
                    f"{option} {file} cannot be read ({error.strerror}); expected a PEM file"
                ) from None
            if not begins:
                raise ConfigError(f"{option} {file} is no PEM file; it must begin with -----BEGIN")
        self._load()

    def _load(self) -> None:
        pair = f"--tls-certificate {self.certificate} and --tls-key {self.key}"

        def no_password() -> str:
            raise ConfigError(
                f"--tls-key {self.key} is encrypted; write it without a password, for this user "
                "alone to read: openssl pkey -in KEY -out PLAIN_KEY"
            )

        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(
                    f"{pair} do not belong together; expected the key that the certificate (the "
                    "first of its chain) was made with"
                ) from None
            why = error.reason or "it is damaged, or something else"
            raise ConfigError(
                f"{pair} cannot be used ({why}); expected a certificate and its private key in PEM"
            ) from None


@dataclass(frozen=True)
class HostConfig:
    """How a host listens.

    Attributes:
        address: Where.
        workers: Processes that hold the models; behind TorchServe, for each model.
        tls: For https; plain http without it.
        origins: Web pages (``https://example.org``, or ``*`` for all) that may ask from a browser.
        ready_s: Seconds until all models must have answered.
        drain_s: Seconds that requests on their way have to be answered once the host shall stop.
        body_s: Seconds that a request's body may take.
        keys: File of the keys that clients must show; without it they need none.
        rate_limit: Requests a second that each key may make.

    Raises:
        ConfigError: If a time is no number, or without end, or a limit has no keys.
    """

    address: Address
    workers: int = 1
    tls: Tls | None = None
    origins: tuple[str, ...] = ()
    ready_s: float = 120.0
    drain_s: float = 10.0
    body_s: float = BODY_S
    keys: Path | None = None
    rate_limit: float | None = None

    def __post_init__(self) -> None:
        times = {
            "--ready-timeout": self.ready_s,
            "--drain-timeout": self.drain_s,
            "--body-timeout": self.body_s,
        }
        for option, seconds in times.items():
            if not math.isfinite(seconds):
                raise ConfigError(f"{option} is {seconds}; expected seconds, such as 30")
        check_limit(self.rate_limit, self.keys, "--rate-limit", "--keys")

    @property
    def url(self) -> str:
        """Root of the inference port for a client on this machine."""
        url = self.address.inference_url
        return url if self.tls is None else url.replace("http://", "https://", 1)
