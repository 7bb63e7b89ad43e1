"""API keys: a file with one key a line, read again whenever it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

from skipserve.errors import ConfigError
from skipserve.protocols.messages import Headers

# Shorter ones could be guessed.
SHORTEST, LONGEST = 16, 512
LOOK_S = 1.0
_PLAIN = re.compile(rf"[!-~]{{{SHORTEST},{LONGEST}}}")
_READ_BY_OTHERS = 0o077

logger = logging.getLogger(__name__)


def read_keys(file: Path) -> list[str]:
    """The keys in a file, without empty lines and comments (``#``).

    Raises:
        ConfigError: If the file cannot be read, has no key, or a line that can be none.
    """
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(
            f"--keys {file} cannot be read ({error.strerror}); expected a file with a key a line"
        ) from None
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not _PLAIN.fullmatch(key):
            raise ConfigError(
                f"--keys {file}: line {number} is no key; expected {SHORTEST} to {LONGEST} "
                "letters, digits and signs without a space, such as `openssl rand -hex 32` prints"
            )
        keys.append(key)
    if not keys:
        raise ConfigError(
            f"--keys {file} has no key; expected one a line, such as `openssl rand -hex 32` prints"
        )
    return keys


def shown_key(headers: Headers) -> str | None:
    """The key of a request: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; or none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")


class Keys:
    """Finds keys in a file, in its present version.

    A file that cannot be read leaves in force what was, and the log says so; before the first time
    that is empty, and every request is refused.

    Args:
        file: With the keys.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._hashes: Sequence[bytes] = ()
        self._seen: tuple[int, ...] = ()
        self._looked_s = 0.0

    def find(self, key: str) -> bytes | None:
        """The hash of a known key [32 bytes]; ``None`` if the key is unknown.

        Takes as long whichever it is, and whatever it has in common with one.
        """
        self._look()
        asked = _hash(key)
        found = None
        for one in self._hashes:
            if hmac.compare_digest(one, asked):
                found = one
        return found

    def _look(self) -> None:
        now_s = time.monotonic()
        if self._hashes and now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        try:
            now = self._file.stat()
            seen: tuple[int, ...] = (now.st_mtime_ns, now.st_size, now.st_ino)
        except OSError:
            seen = (0,)
        if seen == self._seen:
            return
        rotated = bool(self._seen)
        self._seen = seen
        try:
            self._hashes = [_hash(key) for key in read_keys(self._file)]
        except ConfigError as error:
            logger.error("%s; the previous keys stay in force", error)
        else:
            if rotated:
                logger.info("%d keys are in force", len(self._hashes))


def warn_of_readers(file: Path) -> None:
    """Warn in the log if other users may read or write the file."""
    if file.stat().st_mode & _READ_BY_OTHERS:
        logger.warning("other users may read or write %s; chmod 600 it", file)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
