"""From build file to archive, redoing only what its inputs changed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import CERTIFICATES, Certificate, Refusal, to_json
from skipserve.artifacts.export import FittedRouter, export_artifact
from skipserve.artifacts.manifest import MANIFEST, RouterSpec, model_file_name
from skipserve.buildfile import BuildFile
from skipserve.calibrate import certify_artifact, propose_candidates
from skipserve.cores import torch_threads, usable_cores
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.files import sha256_of
from skipserve.networks import ResidualNetwork
from skipserve.plots import plot_runs
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.propose import read_signals
from skipserve.routing.routed import Router
from skipserve.routing.stages import block_time, choose_decisions, thin_decisions
from skipserve.runtime.backends import open_backend
from skipserve.runtime.engine import FORMATS, BackendName
from skipserve.serving.archive import package
from skipserve.training.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint
from skipserve.training.loop import Epoch, fit
from skipserve.training.shipped import difference, read_shipped, take
from skipserve.versions import version_of

PARITY_ROWS = 256
SOURCES = Path(__file__).parent
# What draws the data of the recipes.
DRAWING = ("mnist1d", "numpy", "scikit-learn", "scipy")
DRAWING_SOURCES = ("training/recipes.py", "training/signals_1d.py")

OnEpoch = Callable[[Epoch], None]
Say = Callable[[str], None]
# What is being done, and the share of it that is done, if that is known.
OnProgress = Callable[[str, float | None], None]


def train(
    build: BuildFile,
    directory: Path,
    on_epoch: OnEpoch,
    on_progress: OnProgress = lambda doing, share: None,
) -> None:
    """Train the network of a build file into a checkpoint directory.

    Raises:
        TrainingDiverged: When the loss is no longer finite; the directory is left as it was.
    """
    epochs = build.training.epochs

    def on_step(done: int, steps: int) -> None:
        epoch = min(done * epochs // steps + 1, epochs)
        on_progress(f"{build.name}: train, epoch {epoch} of {epochs}", done / steps)

    on_progress(f"{build.name}: train, epoch 1 of {epochs}", None)
    network, history = fit(build.network, build.recipe, build.training, on_epoch, on_step)
    _save(build, directory, network, history)


def take_or_train(build: BuildFile, on_epoch: OnEpoch, say: Say, on_progress: OnProgress) -> None:
    """Make the checkpoint of a build file of the weights that ship with it, or train.

    Raises:
        TrainingDiverged: When the loss is no longer finite; the checkpoint is left as it was.
    """
    weights = build.shipped
    try:
        taken = take(weights, build.recipe, build.network, build.training)
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
    save_checkpoint(directory, network, build.recipe.name, build.training, history)
    plot_runs([directory], directory / "training.png")


def _shipped_hash(build: BuildFile) -> str | None:
    # As their JSON gives it: a damaged copy is no reason to train what was taken already.
    try:
        shipped = read_shipped(build.shipped)
    except CheckpointError:
        return None
    if shipped is None or difference(shipped, build.recipe, build.network, build.training):
        return None
    return shipped.weights_sha256


def export(build: BuildFile) -> None:
    """Export the checkpoint of a build file to its artifact directory.

    Raises:
        CheckpointError: If there is none, or it is of another recipe.
        ParityError: If a file disagrees with the network.
    """
    checkpoint = load_checkpoint(build.checkpoint)
    if checkpoint.run.recipe != build.recipe.name:
        raise ConfigError(
            f"{build.checkpoint} was trained with recipe {checkpoint.run.recipe!r}, "
            f"{build.path} says {build.recipe.name!r}; run `skipserve build {build.path}`"
        )
    export_artifact(
        build.name,
        checkpoint,
        build.recipe.draw("test").inputs[:PARITY_ROWS],
        build.export.formats,
        build.export.precisions,
        build.artifact,
        lambda file, outputs: open_backend(file, outputs).run,
        fitted_router(build, checkpoint.network),
    )


def fitted_router(build: BuildFile, network: ResidualNetwork) -> FittedRouter | None:
    """Choose the stages and fit the router of a build file, or ``None`` if it has none."""
    config = build.router
    if config is None:
        return None
    with torch_threads(usable_cores()):
        decisions, grouping = choose_decisions(config, network)
        router, limit = _fit(build, config, network, decisions)
        if config.stages == "auto" and config.policy == "exit" and len(decisions) > 1:
            proposing = build.recipe.draw("propose").inputs
            seen = read_signals(network, router, proposing, limit)
            block_s = block_time(network)
            decisions, grouping = thin_decisions(decisions, *seen, network.config.depth, block_s)
            router, limit = _fit(build, config, network, decisions)
    spec = RouterSpec(
        signal=config.signal,
        policy=config.policy,
        decisions=tuple(decisions),
        exit_heads=config.exit_heads,
        guard_quantile=config.guard,
        guard_limit=to_json(limit),
        grouping=grouping,
        risks=config.risks,
        confidence=config.confidence,
    )
    return FittedRouter(router, spec)


def _fit(
    build: BuildFile, config: RouterConfig, network: ResidualNetwork, decisions: Sequence[int]
) -> tuple[Router, float]:
    training, calibration = build.recipe.draw("train"), build.recipe.draw("propose")
    return fit_router(config, network, decisions, training.inputs, calibration.inputs)


def calibrate(build: BuildFile, say: Say) -> None:
    """Propose thresholds for the artifact of a build file and certify every file of it.

    Raises:
        ConfigError: If the build file has no [router].
    """
    config = build.router
    if config is None:
        raise ConfigError(f"{build.path} has no [router] section: there is nothing to calibrate")
    network = load_checkpoint(build.checkpoint).network
    spec = open_artifact(build.artifact).manifest.router
    if spec is None:
        raise ArtifactError(
            f"{build.artifact} was exported without a router; run `skipserve build {build.path}`"
        )
    with torch_threads(usable_cores()):
        router, _ = _fit(build, config, network, spec.decisions)
        propose_candidates(build.artifact, network, router, build.recipe.draw("propose"))
    samples = build.recipe.draw("certify")
    if "fp32" not in build.export.precisions:
        say(
            f"{build.name}: nothing is certified: FP16 is emulated on a CPU; run "
            f"`skipserve certify {build.artifact}` on the GPU that will serve"
        )
        return
    for backend in certified_backends(build):
        certify_artifact(
            build.artifact,
            samples.inputs.numpy(),
            config.risks,
            config.confidence,
            labels=samples.labels.numpy(),
            backend=backend,
            precision="fp32",
            provider="cpu",
            threads=0,
            batch_size=_certified_batch(build),
            say=say,
        )


def certified_backends(build: BuildFile) -> list[BackendName]:
    """The backend a model serves with; all it has files for, if it has none for that one."""
    have = [name for name, format in FORMATS.items() if format in build.export.formats]
    return [build.serving.backend] if build.serving.backend in have else have


def _certified_batch(build: BuildFile) -> int:
    return max(build.serving.batch_size, 32)


def make_archive(build: BuildFile) -> Path:
    """Package the artifact of a build file into the model store."""
    return package(build.artifact, build.handler, build.serving, build.archive.parent)


@dataclass(frozen=True)
class Step:
    """One step of a build.

    Attributes:
        name: What is said while it runs.
        inputs: Everything the outcome depends on, asked for when its turn comes.
        outputs: The files that must be as the step left them.
        run: Does it.
        left: What must be as the step left it, where that is less than the files' content.
    """

    name: str
    inputs: Callable[[], Any]
    outputs: tuple[Path, ...]
    run: Callable[[], object]
    left: Callable[[], Any] | None = None

    def outcome(self) -> Any:
        """What must be as the step left it."""
        return _hashes(self.outputs) if self.left is None else self.left()


def steps(build: BuildFile, on_epoch: OnEpoch, say: Say, on_progress: OnProgress) -> list[Step]:
    """The steps of a build file, in order."""
    weights, manifest = build.checkpoint / WEIGHTS, build.artifact / MANIFEST
    config, certificates = build.checkpoint / "config.json", build.artifact / CERTIFICATES
    router = None if build.router is None else build.router.model_dump(mode="json")
    calibration = Step(
        "calibrate",
        lambda: (
            sha256_of(manifest),
            router,
            (_certified_batch(build), certified_backends(build)),
            _sources("networks", "routing", "runtime", "artifacts", *DRAWING_SOURCES),
            _sources("build.py", "calibrate.py", "cores.py"),
            _versions("torch", "onnxruntime", *DRAWING),
        ),
        (certificates,),
        lambda: calibrate(build, say),
        # More may be certified later, on other machines and other rows.
        lambda: _calibrated(build),
    )
    return [
        Step(
            "train",
            lambda: (
                build.recipe.name,
                build.network.model_dump(mode="json"),
                build.training.model_dump(mode="json"),
                _sources("networks", "training"),
                _versions("torch", *DRAWING),
                _shipped_hash(build),
            ),
            (weights, config),
            lambda: take_or_train(build, on_epoch, say, on_progress),
        ),
        Step(
            "export",
            lambda: (
                build.name,
                _hashes((weights, config)),
                build.export.model_dump(mode="json"),
                router,
                _sources("networks", "routing", "artifacts", *DRAWING_SOURCES),
                _sources("build.py", "cores.py"),
                _versions("torch", "onnx", "onnxscript", "onnxruntime", *DRAWING),
            ),
            (manifest, *_model_files(build)),
            lambda: export(build),
        ),
        *([calibration] if build.router is not None else []),
        Step(
            "package",
            lambda: (
                sha256_of(manifest),
                _hashes((certificates,)),
                sha256_of(build.handler) if build.handler.is_file() else None,
                build.serving.model_dump(mode="json"),
                _sources("serving"),
                _versions("torch-model-archiver"),
            ),
            (build.archive,),
            lambda: make_archive(build),
        ),
    ]


def run_steps(
    build: BuildFile,
    on_epoch: OnEpoch,
    say: Say,
    on_progress: OnProgress = lambda doing, share: None,
) -> None:
    """Run every step whose inputs or outputs are not what the last build left.

    Content decides, not time stamps: ``.build/NAME.json`` keeps the hash of each step's inputs
    and of its outputs.
    """
    record_file = build.root / ".build" / f"{build.name}.json"
    record = _read_record(record_file)
    for step in steps(build, on_epoch, say, on_progress):
        on_progress(f"{build.name}: {step.name}", None)
        inputs = _fingerprint(step.inputs())
        if record.get(step.name) == {"inputs": inputs, "outputs": step.outcome()}:
            say(f"{build.name}: {step.name} is up to date")
            continue
        say(f"{build.name}: {step.name} …")
        step.run()
        record[step.name] = {"inputs": inputs, "outputs": step.outcome()}
        record_file.parent.mkdir(exist_ok=True)
        record_file.write_text(json.dumps(record, indent=2) + "\n")


def _model_files(build: BuildFile) -> list[Path]:
    kinds = itertools.product(build.export.formats, build.export.precisions)
    return [build.artifact / model_file_name(format, precision) for format, precision in kinds]


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):  # no build yet, or a record nobody can use: build
        return {}
    return record if isinstance(record, dict) else {}


def _fingerprint(inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _hashes(files: tuple[Path, ...]) -> list[str | None]:
    return [sha256_of(file) if file.is_file() else None for file in files]


def _calibrated(build: BuildFile) -> str | None:
    """The candidates, and which of what the build itself certifies has an entry."""
    try:
        artifact = open_artifact(build.artifact)
    except ArtifactError:  # damaged
        return None
    made, risks = artifact.certificates, build.router.risks if build.router else ()
    files = [
        entry.sha256
        for entry in artifact.manifest.files
        for backend in certified_backends(build)
        if (entry.format, entry.precision) == (FORMATS[backend], "fp32")
    ]
    entries: list[Certificate | Refusal] = [*made.certificates, *made.refusals]
    own = {
        (one.file_sha256, one.measure, one.risk)
        for one in entries
        if one.file_sha256 in files and one.provider == "cpu" and one.risk in risks
    }
    return _fingerprint([made.candidates, sorted(own)])


def _sources(*places: str) -> list[str]:
    """The hashes of modules, and of all modules in packages."""
    paths = [SOURCES / place for place in places]
    files = [[path] if path.suffix else sorted(path.rglob("*.py")) for path in paths]
    return [sha256_of(file) for file in itertools.chain(*files)]


def _versions(*packages: str) -> list[str | None]:
    found: list[str | None] = []
    for name in packages:
        try:
            found.append(version_of(name))
        except PackageNotFoundError:  # of another recipe
            found.append(None)
    return found
