"""From build file to archive, redoing only what its inputs changed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import CERTIFICATES, Certificate, Refusal
from skipserve.artifacts.export import Origin, Routing, export_artifact
from skipserve.artifacts.graphs import in_precision
from skipserve.artifacts.manifest import MANIFEST, Precision
from skipserve.building.buildfile import BuildFile
from skipserve.certification.calibrate import certify_artifact, propose_candidates
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.files import sha256_of
from skipserve.hosts.torchserve.packaging import package
from skipserve.networks import ResidualNetwork
from skipserve.plots import plot_runs
from skipserve.routing.fit import fit_router
from skipserve.runtime.runners import FORMATS, BackendName
from skipserve.sources.splits import Splits
from skipserve.training.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint
from skipserve.training.loop import Epoch, fit
from skipserve.training.shipped import difference, read_shipped, take
from skipserve.versions import version_of

SOURCES = Path(__file__).parent.parent
# What draws the data of the recipes.
DRAWING = ("mnist1d", "numpy", "scikit-learn", "scipy")
DRAWING_SOURCES = ("training/recipes.py", "training/signals_1d.py")

OnEpoch = Callable[[Epoch], None]
Say = Callable[[str], None]
# What is being done, and the share of it that is done, if that is known.
OnProgress = Callable[[str, float | None], None]


def quiet(doing: str, share: float | None) -> None:
    """Tell nobody how far things are."""


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
    """Make the checkpoint of a build file of the weights that ship with it, or train.

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


def _shipped_hash(build: BuildFile) -> str | None:
    # As their JSON gives it: a damaged copy is no reason to train what was taken already.
    trained = build.trained
    try:
        shipped = read_shipped(build.shipped)
    except CheckpointError:
        return None
    if shipped is None or difference(shipped, trained.recipe, trained.network, trained.training):
        return None
    return shipped.weights_sha256


def origin_of(build: BuildFile) -> tuple[Origin, Splits]:
    """What a build file makes an artifact from, and its rows.

    Raises:
        CheckpointError: If there is no checkpoint, or it is of another recipe.
        CutError: If the graph cannot be read.
        ConfigError: If the rows do not fit it.
    """
    if build.brought is not None:
        from skipserve.sources.brought import brought_origin

        return brought_origin(build.brought, build.root)
    from skipserve.sources.recipe import recipe_origin, recipe_splits

    checkpoint, recipe = load_checkpoint(build.checkpoint), build.trained.recipe
    if checkpoint.run.recipe != recipe.name:
        raise ConfigError(
            f"{build.checkpoint} was trained with recipe {checkpoint.run.recipe!r}, "
            f"{build.path} says {recipe.name!r}; run `skipserve build {build.path}`"
        )
    return recipe_origin(checkpoint, recipe), recipe_splits(recipe)


def export(build: BuildFile, say: Say = lambda line: None) -> None:
    """Export what a build file names to its artifact directory, with its router fitted.

    Raises:
        CheckpointError: If there is no checkpoint, or it is of another recipe.
        CutError: If the graph cannot be cut.
        ParityError: If a file disagrees with the source.
    """
    origin, splits = origin_of(build)
    routing = None
    if build.router is not None:
        routing = _routing(build, origin, splits, say)
    export = build.export
    export_artifact(build.name, origin, export.formats, export.precisions, build.artifact, routing)


def _routing(build: BuildFile, origin: Origin, splits: Splits, say: Say) -> Routing:
    """Fit the router of a build file: once for FP32 and FP16, and once for INT8."""
    assert build.router is not None
    routing = Routing(build.exits, build.router)
    kinds: dict[Precision, Precision] = {}
    for precision in build.export.precisions:
        kinds.setdefault("int8" if precision == "int8" else "fp32", precision)
    exits = build.exits
    for kind in kinds:
        network = in_precision(origin.network, kind, splits.fit.rows)
        rows = splits.fit.rows, splits.propose.rows
        fitted = fit_router(network, exits, build.router, *rows, say)
        routing.fitted[kind] = fitted
        # One manifest, one set of exits: what comes next has its own numbers at the same places.
        leaving = [one.blocks for one in fitted.exits if one.leaves]
        exits = exits.model_copy(update={"at": tuple(leaving), "first": leaving[0]})
    return routing


def calibrate(build: BuildFile, say: Say) -> None:
    """Propose thresholds for the artifact of a build file and certify its files.

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
    splits = rows_of(build)
    propose_candidates(build.artifact, splits.propose.rows)
    precisions = [one for one in build.export.precisions if one != "fp16"]
    if not precisions:
        say(
            f"{build.name}: nothing is certified: FP16 is emulated on a CPU; run "
            f"`skipserve certify {build.artifact}` on the GPU that will serve"
        )
        return
    for backend, precision in itertools.product(certified_backends(build), precisions):
        if not artifact.hashes(FORMATS[backend], precision):
            continue
        certify_artifact(
            build.artifact,
            splits.certify.rows.tensors,
            config.risks,
            config.confidence,
            labels=splits.certify.labels,
            backend=backend,
            precision=precision,
            provider="cpu",
            threads=0,
            batch_size=_certified_batch(build),
            say=say,
        )


def rows_of(build: BuildFile) -> Splits:
    """The rows of a build file, split."""
    if build.brought is not None:
        from skipserve.sources.brought import brought_rows

        return brought_rows(build.brought, build.root)
    from skipserve.sources.recipe import recipe_splits

    return recipe_splits(build.trained.recipe)


def certified_backends(build: BuildFile) -> list[BackendName]:
    """The backend a model serves with; all it has files for, if it has none for that one."""
    have = [name for name, format in FORMATS.items() if format in build.export.formats]
    return [build.serving.backend] if build.serving.backend in have else have


def _certified_batch(build: BuildFile) -> int:
    return max(build.serving.batch_size, 128)


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
    manifest, certificates = build.artifact / MANIFEST, build.artifact / CERTIFICATES
    found = [] if build.brought is not None else [_training(build, on_epoch, say, on_progress)]
    asked = [None if build.router is None else build.router.model_dump(mode="json")]
    asked.append(build.exits.model_dump(mode="json"))
    found.append(
        Step(
            "export",
            lambda: (
                build.name,
                _origin_inputs(build),
                build.export.model_dump(mode="json"),
                asked,
                _sources("networks", "routing", "artifacts", "graph", "sources", "runtime"),
                _sources("building/steps.py", "cores.py", *DRAWING_SOURCES),
                _versions("torch", "onnx", "onnxscript", "onnxruntime", *DRAWING),
            ),
            (manifest,),
            lambda: export(build, say),
            lambda: _exported(build),
        )
    )
    if build.router is not None:
        found.append(
            Step(
                "calibrate",
                lambda: (
                    sha256_of(manifest),
                    asked,
                    (_certified_batch(build), certified_backends(build)),
                    _origin_inputs(build),
                    _sources("certification", "routing", "runtime", "artifacts", "sources"),
                    _sources("networks", "building/steps.py", "cores.py", *DRAWING_SOURCES),
                    _versions("torch", "onnxruntime", *DRAWING),
                ),
                (certificates,),
                lambda: calibrate(build, say),
                # More may be certified later, on other machines and other rows.
                lambda: _calibrated(build),
            )
        )
    found.append(
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
        )
    )
    return found


def _training(build: BuildFile, on_epoch: OnEpoch, say: Say, on_progress: OnProgress) -> Step:
    trained, checkpoint = build.trained, build.checkpoint
    return Step(
        "train",
        lambda: (
            trained.recipe.name,
            trained.network.model_dump(mode="json"),
            trained.training.model_dump(mode="json"),
            _sources("networks", "training"),
            _versions("torch", *DRAWING),
            _shipped_hash(build),
        ),
        (checkpoint / WEIGHTS, checkpoint / "config.json"),
        lambda: take_or_train(build, on_epoch, say, on_progress),
    )


def _origin_inputs(build: BuildFile) -> Any:
    """What the origin of a build file depends on."""
    if build.brought is None:
        return _hashes((build.checkpoint / WEIGHTS, build.checkpoint / "config.json"))
    brought = build.brought
    return [brought.model_dump(mode="json"), _hashes(tuple(brought.files(build.root)))]


def _exported(build: BuildFile) -> str | None:
    """The manifest, if every file it names is as it says."""
    try:
        open_artifact(build.artifact)
    except ArtifactError:  # missing or damaged
        return None
    return sha256_of(build.artifact / MANIFEST)


def run_steps(
    build: BuildFile, on_epoch: OnEpoch, say: Say, on_progress: OnProgress = quiet
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
        artifact.hashes(FORMATS[backend], precision)
        for backend in certified_backends(build)
        for precision in build.export.precisions
    ]
    entries: list[Certificate | Refusal] = [*made.certificates, *made.refusals]
    own = {
        (json.dumps(one.files, sort_keys=True), one.measure, one.risk)
        for one in entries
        if one.files in files and one.provider == "cpu" and one.risk in risks
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
