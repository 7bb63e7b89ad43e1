"""Finding a model by checkpoint, artifact or name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import MANIFEST
from skipserve.reporting.named import ARTIFACTS, CHECKPOINTS, find_directory
from skipserve.signature import Signature
from skipserve.sources.recipe import signature_of
from skipserve.tasks import Classify, Task
from skipserve.training.checkpoint import Checkpoint, load_checkpoint
from skipserve.training.history import WEIGHTS


@dataclass(frozen=True)
class Model:
    """A checkpoint, the artifact exported from it, or both.

    Attributes:
        name: Of the directory.
        directory: That was named.
        checkpoint: The network with its weights, or ``None``.
        artifact: The exported files, or ``None``.
        notes: What was looked for and is not there, a sentence each.
    """

    name: str
    directory: Path
    checkpoint: Checkpoint | None
    artifact: Artifact | None
    notes: tuple[str, ...] = ()

    @property
    def recipe(self) -> str | None:
        """Name of the recipe it was trained by, or ``None`` if it was brought."""
        if self.checkpoint is not None:
            return self.checkpoint.run.recipe
        assert self.artifact is not None
        return self.artifact.manifest.recipe

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        if self.artifact is not None:
            return self.artifact.manifest.signature
        assert self.checkpoint is not None
        return signature_of(self.checkpoint.network.config)

    @property
    def task(self) -> Task:
        """The task of the model."""
        if self.artifact is not None:
            return self.artifact.manifest.task
        assert self.checkpoint is not None
        return Classify(classes=self.checkpoint.network.config.classes)

    @property
    def query(self) -> str | None:
        """The column of queries in its rows, or ``None``."""
        return None if self.artifact is None else self.artifact.manifest.query

    @property
    def depth(self) -> int:
        """Number of blocks."""
        if self.artifact is not None:
            return self.artifact.manifest.depth
        assert self.checkpoint is not None
        return self.checkpoint.network.config.depth

    @property
    def skippable(self) -> bool:
        """Whether rows may stop early: blocks are residual, or exits were fitted."""
        if self.checkpoint is not None:
            return self.checkpoint.network.config.skippable
        assert self.artifact is not None
        manifest = self.artifact.manifest
        return manifest.router is not None or manifest.residual

    @property
    def build_file(self) -> Path:
        """The path of its build file, which may no longer exist."""
        return self.directory.resolve().parent.parent / "export" / f"{self.name}.toml"


def find_model(text: str, root: Path | None = None) -> Model:
    """Open the model that a person names, with its checkpoint and artifact.

    Args:
        text: A checkpoint directory, an artifact directory, or the name of one in artifacts/ or
            checkpoints/.
        root: Folder that holds those two; the working directory by default.

    Raises:
        ConfigError: If there is no such directory, or it is neither of the two.
        CheckpointError: If the checkpoint is damaged.
        ArtifactError: If the artifact is damaged.
    """
    directory = find_directory(text, root)
    if (directory / MANIFEST).is_file():
        return _with_checkpoint(directory)
    return _with_artifact(directory)


def _with_checkpoint(directory: Path) -> Model:
    artifact = open_artifact(directory)
    name = directory.resolve().name
    if artifact.manifest.recipe is None:  # a brought network has no checkpoint
        return Model(name, directory, None, artifact)
    beside = _beside(directory, CHECKPOINTS)
    note = (
        f"No checkpoint stands at {beside}: what needs the weights block by block (norms, signals "
        "beside the router's own) is left out; `skipserve train` makes one"
    )
    if (beside / WEIGHTS).is_file():
        checkpoint = load_checkpoint(beside)
        if checkpoint.sha256 == artifact.manifest.source.sha256:
            return Model(name, directory, checkpoint, artifact)
        note = (
            f"{beside} is not what {directory} was exported from, and is left out; "
            "`skipserve build` makes them one again"
        )
    return Model(name, directory, None, artifact, (note,))


def _with_artifact(directory: Path) -> Model:
    checkpoint = load_checkpoint(directory)
    name = directory.resolve().name
    beside = _beside(directory, ARTIFACTS)
    note = (
        f"No artifact stands at {beside}: certificates and milliseconds are left out; "
        "`skipserve build` makes one"
    )
    if (beside / MANIFEST).is_file():
        artifact = open_artifact(beside)
        if checkpoint.sha256 == artifact.manifest.source.sha256:
            return Model(name, directory, checkpoint, artifact)
        note = (
            f"{beside} was not exported from {directory}, and is left out; "
            "`skipserve build` makes them one again"
        )
    return Model(name, directory, checkpoint, None, (note,))


def _beside(directory: Path, folder: str) -> Path:
    place = directory.resolve()
    beside = place.parent.parent / folder / place.name
    # As the user would type it, where that is shorter.
    here = Path.cwd()
    return beside.relative_to(here) if beside.is_relative_to(here) else beside
