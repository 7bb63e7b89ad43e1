"""Certificates as JSON has them: what is wrong with one, and copies with a value changed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from skipserve.certification.certificate_file import (
    seal,
)
from skipserve.certification.certificate_reading import read_certificate
from skipserve.certification.findings import Fault, NotCertified
from skipserve.certification.signing import check_signature
from skipserve.certification.verification import check_certificate

EPSILON, SHARE = 0.05, 0.5


def faults(values: dict[str, Any], artifact, folder: Path, key: Path | None = None) -> set[Fault]:
    """What is wrong with these values."""
    file = folder / "certificate.json"
    file.write_text(json.dumps(values))
    try:
        read, raw = read_certificate(file)
    except NotCertified as error:
        return {error.fault}
    found = list(check_certificate(read, raw, artifact))
    if key is not None and (wrong := check_signature(read, raw, key)) is not None:
        found.append(wrong)
    return {one.fault for one in found}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to every single value in JSON."""
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in leaves(one, (*path, key))]
    if isinstance(value, list):
        return [leaf for place, one in enumerate(value) for leaf in leaves(one, (*path, place))]
    return [path]


def put(values: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with one value changed."""
    changed = copy.deepcopy(values)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def get(values: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """What a forger would write who knows how the hash is made."""
    return {**values, "sha256": seal(values)}
