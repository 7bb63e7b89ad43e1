"""The certificates of an artifact as JSON beside its manifest.

They stand in a file of their own: the manifest says what was exported and never changes after;
certificates are added where the files are tested, on the machine that will serve them.
"""

from __future__ import annotations

import json
from pathlib import Path

from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.router_spec import RouterSpec
from skipserve.errors import ArtifactError, ConfigError
from skipserve.files import held, replace_text
from skipserve.schema import parse

CERTIFICATES = "certificates.json"


def read_certificates(directory: Path) -> Certificates:
    """Read an artifact's certificates; none if it was never calibrated.

    Raises:
        ArtifactError: If the file is damaged.
    """
    source = directory / CERTIFICATES
    if not source.is_file():
        return Certificates()
    return certificates_in(source.read_bytes(), str(source))


def certificates_in(content: bytes, where: str) -> Certificates:
    """The certificates in the content of such a file.

    Args:
        content: Of the file.
        where: Its name, for the error message.

    Raises:
        ArtifactError: If it is damaged.
    """
    try:
        return parse(Certificates, json.loads(content), where)
    except (ValueError, RecursionError, ConfigError) as error:
        raise ArtifactError(
            f"{where} is damaged: {error}; delete it and run `skipserve calibrate`"
        ) from None


def write_certificates(directory: Path, certificates: Certificates) -> None:
    """Write an artifact's certificates, replacing older ones as a whole."""
    replace_text(directory / CERTIFICATES, json_of(certificates))


def add_certificates(directory: Path, news: Certificates, router: RouterSpec) -> Certificates:
    """Add what a test has found, beside what others have added while it ran.

    Args:
        directory: The artifact.
        news: New certificates and refusals, and the candidates that they are of.
        router: Of the artifact.

    Returns:
        All that the artifact has now.

    Raises:
        ArtifactError: If the artifact has other candidates by now.
    """
    with held(directory):
        made = read_certificates(directory).replacing(news, router)
        write_certificates(directory, made)
    return made


def json_of(certificates: Certificates) -> str:
    """The content of the file."""
    return certificates.model_dump_json(indent=2) + "\n"
