"""An artifact or an archive as a person names it: a path, or the name of a model."""

from __future__ import annotations

from pathlib import Path

from skipserve.artifacts.archive import verify
from skipserve.artifacts.archive_names import model_of
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import MANIFEST
from skipserve.errors import ConfigError, suggestion

ARTIFACTS, STORE = Path("artifacts"), Path("model_store")


def find_model(text: str) -> Path:
    """The artifact directory or the archive that a person names.

    Args:
        text: An artifact directory, an archive (.mar), or a name: of an artifact in artifacts/,
            else of an archive in model_store/.

    Returns:
        A directory that holds a manifest, or a file that ends with ``.mar``.

    Raises:
        ConfigError: If it is neither, with the nearest name.
    """
    path = Path(text)
    places = (path, ARTIFACTS / text)
    found = next((one for one in places if (one / MANIFEST).is_file()), None)
    if found is not None:
        return found
    archive = path if path.suffix == ".mar" else STORE / f"{text}.mar"
    if archive.is_file():
        return archive
    if path.is_file():
        raise ConfigError(
            f"{text} is a file, expected an artifact directory, an archive (.mar), or the name of "
            "one in artifacts/ or model_store/"
        )
    if path.is_dir():
        raise ConfigError(f"{text} is no artifact: it has no {MANIFEST}; {_hint(path)}")
    raise ConfigError(
        f"{text} is not there, as an artifact, an archive (.mar), or a name in artifacts/ or "
        f"model_store/; {_hint(path)}"
    )


def open_model(files: Path, scratch: Path) -> Artifact:
    """Open what :func:`find_model` has found; an archive is unpacked and checked as a whole.

    Args:
        files: An artifact directory, or an archive.
        scratch: An empty folder for the content of an archive.

    Raises:
        ArtifactError: If it is damaged.
        LaunchError: If the machine is full or forbids it.
    """
    if files.suffix != ".mar":
        return open_artifact(files)
    verify(files, scratch)
    return open_artifact(scratch / model_of(files))


def _hint(path: Path) -> str:
    """The nearest artifact or archive: where that one was looked for, and where they are built."""
    archives = {str(one) for folder in (path.parent, STORE) for one in folder.glob("*.mar")}
    have = archives
    if path.suffix != ".mar":
        folders = (path.parent, ARTIFACTS) if path.parent.name else (ARTIFACTS,)
        made = {one.parent for folder in folders for one in folder.glob(f"*/{MANIFEST}")}
        names = {one.name for one in made}
        have = {str(one) for one in made} | {one for one in archives if Path(one).stem not in names}
    return suggestion(str(path), have, "make one with `skipserve build` or `skipserve bring`")
