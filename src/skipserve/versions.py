"""Versions of this package and of installed ones, whichever distribution brought them."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from skipserve import __version__

# GPU environments have the same package under another name.
ALSO_CALLED = {"onnxruntime": "onnxruntime-gpu"}


def version_of(package: str) -> str:
    """The version of an installed package; of this one, installed or not.

    Raises:
        PackageNotFoundError: If no distribution of it is installed.
    """
    if package == "skipserve":
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        with suppress(PackageNotFoundError):
            return version(ALSO_CALLED.get(package, package))
        raise


def version_if_installed(package: str) -> str | None:
    """The version of a package that an extra may have brought."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None
