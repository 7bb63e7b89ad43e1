"""Opening an artifact: every file must have the hash that the manifest gives."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.certificates_file import CERTIFICATES, read_certificates
from skipserve.artifacts.manifest import MANIFEST, MANIFEST_VERSION, Manifest, Role
from skipserve.errors import ArtifactError, ConfigError, suggestion
from skipserve.files import sha256_of
from skipserve.preprocessing.config import NeededFile
from skipserve.schema import parse


@dataclass(frozen=True)
class Artifact:
    """An artifact directory whose files have been checked against its manifest."""

    directory: Path
    manifest: Manifest
    certificates: Certificates

    def files(self, format: Format, precision: Precision, role: Role) -> list[Path]:
        """Model files of one format, precision and role, in order."""
        return [
            self.directory / entry.path
            for entry in self.manifest.files
            if (entry.format, entry.precision, entry.role) == (format, precision, role)
        ]

    def hashes(self, format: Format, precision: Precision) -> dict[str, str]:
        """The sha256 of every file of one format and precision, by name; empty if it has none.

        What turns values into tensors is among them: other tokens are other rows.
        """
        made = {
            entry.path: entry.sha256
            for entry in self.manifest.files
            if (entry.format, entry.precision) == (format, precision)
        }
        return made and made | {one.path: one.sha256 for one in self.needed}

    @property
    def needed(self) -> tuple[NeededFile, ...]:
        """Files that preprocessing needs, such as the tokenizer."""
        return () if self.manifest.preprocessing is None else self.manifest.preprocessing.files

    def require(self, format: Format, precision: Precision) -> None:
        """Check that the artifact has files of a format and precision.

        Raises:
            ArtifactError: If it has none, naming those it has.
        """
        if self.hashes(format, precision):
            return
        have = dict.fromkeys(f"{one.format} {one.precision}" for one in self.manifest.files)
        raise ArtifactError(
            f"{self.directory} holds no {format} files in {precision}, only {', '.join(have)}; "
            "add it to [export] in the model's TOML and build again"
        )


def open_artifact(directory: Path) -> Artifact:
    """Read an artifact and check the hash of every file in it.

    Raises:
        ArtifactError: If the manifest is missing, foreign or of another version, or a file is
            missing or differs from it, or its candidates are not of its router.
    """
    source = directory / MANIFEST
    if not source.is_file():
        beside = () if directory.exists() else directory.parent.glob(f"*/{MANIFEST}")
        have = (str(one.parent) for one in beside)
        hint = suggestion(str(directory), have, "make one with `skipserve build`")
        raise ArtifactError(f"{directory} is not an artifact: {MANIFEST} is missing; {hint}")
    try:
        values = json.loads(source.read_text())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{source} is not JSON: {error}; build the artifact again") from None
    found = values.get("manifest_version") if isinstance(values, dict) else None
    if found != MANIFEST_VERSION:
        name = values.get("name") if isinstance(values, dict) else None
        raise ArtifactError(
            f"{source}: manifest_version is {found!r}, this skipserve reads {MANIFEST_VERSION}; "
            f"make it anew with `skipserve build export/{name or 'NAME'}.toml`"
        )
    try:
        manifest = parse(Manifest, values, str(source))
    except ConfigError as error:
        raise ArtifactError(f"{error}; build the artifact again") from None
    artifact = Artifact(directory, manifest, read_certificates(directory))
    _check_candidates(artifact)
    for entry in manifest.files:
        _check(directory, entry.path, entry.sha256)
    for needed in artifact.needed:
        _check(directory, needed.path, needed.sha256)
    return artifact


def find_artifact(name: str | os.PathLike[str]) -> Artifact:
    """Open an artifact directory, or one in artifacts/.

    Raises:
        ConfigError: If there is no artifact of that name.
        ArtifactError: If it is damaged.
    """
    for directory in (Path(name), Path("artifacts") / name):
        if (directory / MANIFEST).is_file():
            return open_artifact(directory)
    have = (one.parent.name for one in Path("artifacts").glob(f"*/{MANIFEST}"))
    hint = suggestion(Path(name).name, have, "make one with `skipserve bring`")
    raise ConfigError(
        f"{os.fspath(name)!r} is no artifact, and none in artifacts/ has that name; {hint}"
    )


def _check_candidates(artifact: Artifact) -> None:
    spec = artifact.manifest.router
    decisions = len(spec.decisions) if spec else 0
    for place, one in enumerate(artifact.certificates.candidates, 1):
        if len(one) != decisions:
            file = artifact.directory / CERTIFICATES
            raise ArtifactError(
                f"{file}: candidate {place} has {len(one)} thresholds, the router takes "
                f"{decisions}; delete it and run `skipserve calibrate`"
            )


def _check(directory: Path, path: str, sha256: str) -> None:
    file = directory / path
    try:
        beside = file.parent == directory and not file.is_symlink()
    except OSError:  # no name of a file here: too long, above all
        beside = False
    if not beside:
        raise ArtifactError(
            f"{directory / MANIFEST} names {path[:100]!r}, expected a file beside it and no link; "
            "build the artifact again"
        )
    if not file.is_file():
        raise ArtifactError(f"{file}: named in the manifest but missing; build the artifact again")
    found = sha256_of(file)
    if found != sha256:
        raise ArtifactError(
            f"{file} is not the file the manifest describes: its sha256 is {found[:12]}…, "
            f"expected {sha256[:12]}…; it was changed or damaged, build the artifact again"
        )
