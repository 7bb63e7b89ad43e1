"""Reading a certificate file: JSON that follows the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skipserve.certification.certificate_file import CERTIFICATE_VERSION, CertificateFile
from skipserve.certification.findings import Fault, NotCertified
from skipserve.errors import ConfigError
from skipserve.schema import parse


def read_certificate(file: Path) -> tuple[CertificateFile, dict[str, Any]]:
    """A certificate and the JSON values it was read from; nothing is checked yet.

    Raises:
        ConfigError: If the file cannot be read.
        NotCertified: If it is not a certificate, or one of another version.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}; `skipserve attest` writes a certificate"
        ) from None
    except UnicodeDecodeError:
        raise NotCertified(Fault.SCHEMA, f"{file} is not text: it is no certificate") from None
    try:
        values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise NotCertified(Fault.SCHEMA, f"{file} is not JSON: {error}") from None
    version = values.get("certificate_version") if isinstance(values, dict) else None
    if version is None:
        raise NotCertified(
            Fault.SCHEMA, f"{file} has no certificate_version: it is no certificate of skipserve"
        )
    if version != CERTIFICATE_VERSION or isinstance(version, bool):
        raise NotCertified(
            Fault.VERSION,
            f"{file} is a certificate of version {version!r}, this skipserve checks version "
            f"{CERTIFICATE_VERSION}: take the skipserve that made it",
        )
    try:
        return parse(CertificateFile, values, str(file)), values
    except ConfigError as error:
        raise NotCertified(Fault.SCHEMA, f"not as the schema says: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
