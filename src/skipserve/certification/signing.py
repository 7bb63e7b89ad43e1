"""Signing certificates with Ed25519, and checking signatures.

Needs the extra ``sign``. Keys are PEM files, as ``openssl genpkey -algorithm ed25519`` makes them.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipserve.certification.certificate_file import CertificateFile, Signature, canonical
from skipserve.certification.findings import Fault, Finding
from skipserve.errors import ConfigError
from skipserve.extras import require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_HOW = "make one with `openssl genpkey -algorithm ed25519 -out key.pem`"


def signed(values: dict[str, Any], key: Path) -> dict[str, Any]:
    """Sign a certificate.

    Args:
        values: Of a certificate, as its file has them: one of an older skipserve may lack fields
            that the hash is then not of. An older signature is replaced.
        key: The private key, PEM without a password.

    Returns:
        The same values with the signature.

    Raises:
        ConfigError: If the file holds no such key.
        LaunchError: If ``cryptography`` is not installed.
    """
    require("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(_bytes_of(key), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key} is no private key without a password: {error}; {_HOW}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{key} is not an Ed25519 key; {_HOW}")
    content = canonical(values, ("signature",))
    signature = Signature(
        public_key=_text(_raw(private.public_key())), value=_text(private.sign(content))
    )
    return {**values, "signature": signature.model_dump(mode="json")}


def check_signature(made: CertificateFile, values: dict[str, Any], key: Path) -> Finding | None:
    """Faults of the signature of a certificate.

    Args:
        made: The certificate.
        values: The JSON values it was read from.
        key: The public key of the expected signer, PEM.

    Raises:
        ConfigError: If the file holds no such key.
        LaunchError: If ``cryptography`` is not installed.
    """
    require("cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(_bytes_of(key))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{key} is no public key: {error}; take one with `openssl pkey -in key.pem -pubout`"
        ) from None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"{key} is not an Ed25519 key; {_HOW}")
    if made.signature is None:
        return Finding(Fault.SIGNATURE, f"nobody signed it, and {key} was asked for")
    if made.signature.public_key != _text(_raw(public)):
        return Finding(Fault.SIGNATURE, f"it was signed with another key than {key}")
    try:
        value = base64.b64decode(made.signature.value, validate=True)
        # Unused bits of the last base64 digit must be 0, so that a signature has one spelling.
        if _text(value) != made.signature.value:
            raise InvalidSignature
        public.verify(value, canonical(values, ("signature",)))
    except (ValueError, InvalidSignature):  # not base64, or of other letters than ASCII
        return Finding(
            Fault.SIGNATURE, f"it was changed after it was signed, or never signed with {key}"
        )
    return None


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes_raw()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
