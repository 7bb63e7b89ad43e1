"""Versions of installed packages, whichever distribution brought them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

# The same package by another name; an environment for GPUs has that one alone.
OTHERWISE = {"onnxruntime": "onnxruntime-gpu"}


def version_of(package: str) -> str:
    """The version of an installed package.

    Raises:
        PackageNotFoundError: If no distribution of it is installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        if package not in OTHERWISE:
            raise
        return version(OTHERWISE[package])
