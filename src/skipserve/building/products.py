"""Products of a build: checkpoint, artifact, certificates, archive."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.asked import FORMATS, BackendName, Precision
from skipserve.artifacts.certificates import MEASURES, Measure
from skipserve.artifacts.export import export_artifact
from skipserve.artifacts.graphs import Precisions
from skipserve.artifacts.origin import Routing
from skipserve.artifacts.touched import write_touched
from skipserve.building.buildfile import BuildFile
from skipserve.building.sourced import Sourced
from skipserve.certification.candidates import propose_candidates
from skipserve.certification.certifying import certify_artifact
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.hosts.torchserve.packaging import package
from skipserve.networks import ResidualNetwork
from skipserve.plots import plot_runs
from skipserve.routing.fit import fit_router
from skipserve.sources.contents import contents_of
from skipserve.sources.splits import Splits
from skipserve.training.checkpoint import save_checkpoint
from skipserve.training.history import Epoch
from skipserve.training.loop import fit
from skipserve.training.shipped import take

OnEpoch = Callable[[Epoch], None]
Say = Callable[[str], None]
# Receives what is being done, and the finished share if it is known.
OnProgress = Callable[[str, float | None], None]


def quiet(doing: str, share: float | None) -> None:
    """Report no progress."""


def train(
    build: BuildFile, directory: Path, on_epoch: OnEpoch, on_progress: OnProgress = quiet
) -> None:
    """Train the network of a build file into a checkpoint directory.

    Raises:
        TrainingDiverged: When the loss is no longer finite; the directory is left as it was.
    """
    trained = build.trained
    epochs = trained.training.epochs

    def on_step(done: int, steps: int) -> None:
        epoch = min(done * epochs // steps + 1, epochs)
        on_progress(f"{build.name}: train, epoch {epoch} of {epochs}", done / steps)

    on_progress(f"{build.name}: train, epoch 1 of {epochs}", None)
    network, history = fit(trained.network, trained.recipe, trained.training, on_epoch, on_step)
    _save(build, directory, network, history)


def take_or_train(build: BuildFile, on_epoch: OnEpoch, say: Say, on_progress: OnProgress) -> None:
    """Make the checkpoint from shipped weights where they fit, else by training.

    Raises:
        TrainingDiverged: When the loss is no longer finite; the checkpoint is left as it was.
    """
    weights, trained = build.shipped, build.trained
    try:
        taken = take(weights, trained.recipe, trained.network, trained.training)
    except CheckpointError as error:
        say(f"{build.name}: {error}; training instead")
        taken = None
    if taken is None:
        train(build, build.checkpoint, on_epoch, on_progress)
        return
    say(f"{build.name}: weights from {'/'.join(weights.parts[-3:])}")
    _save(build, build.checkpoint, *taken)


def _save(
    build: BuildFile, directory: Path, network: ResidualNetwork, history: list[Epoch]
) -> None:
    save_checkpoint(directory, network, build.trained.recipe.name, build.trained.training, history)
    plot_runs([directory], directory / "training.png")


def export(build: BuildFile, say: Say = lambda line: None, sourced: Sourced | None = None) -> None:
    """Export the network of a build file, with a fitted router, to its artifact directory.

    Args:
        build: The build file.
        say: Receives progress, line by line.
        sourced: Of the build file, where other steps read it too.

    Raises:
        CheckpointError: If there is no checkpoint, or it is of another recipe.
        CutError: If the graph cannot be cut.
        ParityError: If a file disagrees with the source.
    """
    sourced = sourced or Sourced(build)
    origin, splits = sourced.origin, sourced.rows
    for note in origin.notes:
        say(f"{build.name}: {note}")
    networks = Precisions(origin.network, splits.fit.rows)
    routing = None
    if build.router is not None:
        routing = _routing(build, networks, splits, say)
    export = build.export
    asked = export.formats, export.precisions
    export_artifact(build.name, origin, networks, *asked, build.artifact, routing)


def _routing(build: BuildFile, networks: Precisions, splits: Splits, say: Say) -> Routing:
    """Fit the router of a build file: once for FP32 and FP16, and once for INT8."""
    assert build.router is not None
    routing = Routing(build.exits, build.router)
    kinds: dict[Precision, Precision] = {}
    for precision in build.export.precisions:
        kinds.setdefault("int8" if precision == "int8" else "fp32", precision)
    exits = build.exits
    for kind in kinds:
        rows = splits.fit.rows, splits.propose.rows
        fitted = fit_router(networks[kind], exits, build.router, *rows, say)
        routing.fitted[kind] = fitted
        # A manifest has one set of exits; other precisions have their own numbers at the same cuts.
        at = tuple(one.blocks for one in fitted.exits)
        first = next(one.blocks for one in fitted.exits if one.leaves)
        exits = exits.model_copy(update={"at": at, "first": first})
    return routing


def calibrate(
    build: BuildFile,
    say: Say,
    sourced: Sourced | None = None,
    on_progress: OnProgress = quiet,
) -> None:
    """Propose thresholds for the artifact of a build file and certify its files.

    Args:
        build: The build file.
        say: Receives progress, line by line.
        sourced: Of the build file, where other steps read it too.
        on_progress: Told what is being done.

    Raises:
        ConfigError: If the build file has no [router].
    """
    config = build.router
    if config is None:
        raise ConfigError(f"{build.path} has no [router] section: there is nothing to calibrate")
    artifact = open_artifact(build.artifact)
    if artifact.manifest.router is None:
        raise ArtifactError(
            f"{build.artifact} was exported without a router; run `skipserve build {build.path}`"
        )
    splits = (sourced or Sourced(build)).rows
    signature = artifact.manifest.signature
    fitted = [contents_of(one.rows, signature) for one in (splits.fit, splits.propose)]
    write_touched(build.artifact, np.concatenate(fitted))
    propose_candidates(build.artifact, splits.propose.rows, queries=splits.propose.queries)
    if config.certificate == "earned":
        say(
            f"{build.name}: nothing is certified here: it starts at full depth and earns its "
            "certificates on its own traffic"
        )
        return
    files = certified_files(build)
    if not files:
        say(
            f"{build.name}: nothing is certified: FP16 is emulated on a CPU; run "
            f"`skipserve certify {build.artifact}` on the GPU that will serve"
        )
        return
    for backend, precision in files:
        if not artifact.hashes(FORMATS[backend], precision):
            continue
        certify_artifact(
            build.artifact,
            splits.certify.rows.tensors,
            config.risks,
            labels=splits.certify.labels,
            queries=splits.certify.queries,
            backend=backend,
            precision=precision,
            provider="cpu",
            cores=0,
            batch_size=certified_batch(build),
            say=say,
            on_progress=on_progress,
        )


def certified_files(build: BuildFile) -> list[tuple[BackendName, Precision]]:
    """Backends and precisions that a build certifies, on the CPU; none where traffic does it.

    Backends are the one that serves, or all if the artifact has no files for it.
    """
    if build.router is None or build.router.certificate == "earned":
        return []
    have = [name for name, format in FORMATS.items() if format in build.export.formats]
    backends = [build.serving.backend] if build.serving.backend in have else have
    precisions = [one for one in build.export.precisions if one != "fp16"]
    return list(itertools.product(backends, precisions))


def certified_measures(build: BuildFile) -> tuple[Measure, ...]:
    """Measures of risk that a build certifies: accuracy lost where its rows have labels."""
    labelled = build.brought is None or build.brought.data.labels is not None
    return MEASURES if labelled else ("disagreement",)


def certified_batch(build: BuildFile) -> int:
    return max(build.serving.batch_size, 128)


def make_archive(build: BuildFile) -> Path:
    """Package the artifact of a build file into the model store."""
    return package(build.artifact, build.handler, build.serving, build.archive.parent)
