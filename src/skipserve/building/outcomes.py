"""Outcomes of the steps of a build: what must be as a step left it, or the step runs again."""

from __future__ import annotations

import json

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.asked import FORMATS
from skipserve.artifacts.certificates import Certificate, Refusal
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.touched import TOUCHED
from skipserve.artifacts.versions import versions_of
from skipserve.building.buildfile import BuildFile
from skipserve.building.fingerprints import fingerprint, hashes
from skipserve.building.products import certified_files, certified_measures
from skipserve.errors import ArtifactError, ConfigError
from skipserve.files import sha256_of


def exported(build: BuildFile) -> str | None:
    """The manifest, if every file in it has the right hash."""
    try:
        open_artifact(build.artifact)
    except ArtifactError:  # missing or damaged
        return None
    return sha256_of(build.artifact / MANIFEST)


def packaged(build: BuildFile) -> list[bool | str] | None:
    """The newest version; it may not be in force, because a rollback stays in force."""
    try:
        have = versions_of(build.archive.parent, build.archive.stem)
    except ConfigError:  # there is none
        return None
    in_force = any(one.in_force and one.number for one in have)
    return [in_force, sha256_of(have[0].archive)]


def calibrated(build: BuildFile) -> str | None:
    """What a build calibrates: candidates, and its own risks with a certificate or a refusal."""
    try:
        artifact = open_artifact(build.artifact)
    except ArtifactError:  # damaged
        return None
    made, risks = artifact.certificates, build.router.risks if build.router else ()
    files = [
        artifact.hashes(FORMATS[backend], precision)
        for backend, precision in certified_files(build)
    ]
    measures = certified_measures(build)
    entries: list[Certificate | Refusal] = [*made.certificates, *made.refusals]
    own = {
        (json.dumps(one.files, sort_keys=True), one.measure, one.risk)
        for one in entries
        if one.files in files
        and one.provider == "cpu"
        and one.measure in measures
        and one.risk in risks
    }
    return fingerprint([made.candidates, sorted(own), hashes((build.artifact / TOUCHED,))])
