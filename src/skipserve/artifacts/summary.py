"""A summary of an archive in a few words, read without unpacking it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST, Manifest
from skipserve.errors import ConfigError
from skipserve.files import DAMAGE
from skipserve.intervals import spelled
from skipserve.schema import parse


def summary_of(archive: Path) -> str:
    """Accuracy of its source, and what is certified of its router."""
    try:
        with zipfile.ZipFile(archive) as content:
            manifest = parse(Manifest, json.loads(content.read(MANIFEST)), MANIFEST)
            made = Certificates()
            if CERTIFICATES in content.namelist():
                made = parse(Certificates, json.loads(content.read(CERTIFICATES)), CERTIFICATES)
    except (*DAMAGE, OSError, LookupError, ValueError, ConfigError):
        return "damaged"
    accuracy = manifest.source.accuracy
    said = [] if accuracy is None else [f"accuracy {accuracy:.2%}"]
    if manifest.router is None:
        return ", ".join([*said, "no router"])
    asked = manifest.router.confidence
    held = {(one.measure, one.risk) for one in made.certificates if one.confidence >= asked}
    said += [
        f"{measure.replace('_', ' ')} {spelled(risk)} certified" for measure, risk in sorted(held)
    ]
    return ", ".join(said if held else [*said, "nothing certified"])
