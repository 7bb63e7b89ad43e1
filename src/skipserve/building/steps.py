"""Steps of a build; a step runs only if its inputs or outputs changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import Certificate, Refusal
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.touched import TOUCHED
from skipserve.artifacts.versions import versions_of
from skipserve.building.buildfile import BuildFile
from skipserve.building.fingerprints import fingerprint, hashes, sources, versions
from skipserve.building.products import (
    OnEpoch,
    OnProgress,
    Say,
    calibrate,
    certified_batch,
    certified_files,
    certified_measures,
    export,
    make_archive,
    quiet,
    take_or_train,
)
from skipserve.building.sourced import Sourced
from skipserve.building.tuned import tune_source
from skipserve.errors import ArtifactError, CheckpointError, ConfigError
from skipserve.files import sha256_of
from skipserve.runtime.runners import FORMATS
from skipserve.training.history import WEIGHTS
from skipserve.training.shipped import difference, read_shipped

# Sources that every step depends on.
OWN_SOURCES = (
    *(f"building/{name}.py" for name in ("fingerprints", "products", "sourced", "steps")),
    "cores.py",
)
# Packages and sources that draw the data of recipes.
DRAWING = ("mnist1d", "numpy", "scikit-learn", "scipy")
DRAWING_SOURCES = ("training/recipes.py", "training/signals_1d.py")


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
        """The result of the step: by default the hashes of its outputs."""
        return hashes(self.outputs) if self.left is None else self.left()


def steps(
    build: BuildFile,
    on_epoch: OnEpoch,
    say: Say,
    on_progress: OnProgress,
    sourced: Sourced | None = None,
) -> list[Step]:
    """The steps of a build file, in order."""
    manifest, certificates = build.artifact / MANIFEST, build.artifact / CERTIFICATES
    sourced = sourced or Sourced(build)
    found = [] if build.brought is not None else [_training(build, on_epoch, say, on_progress)]
    if build.tuning is not None:
        found.append(_tuning(build, say))
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
                sources("networks", "routing", "artifacts", "graph", "sources", "runtime"),
                sources("preprocessing", "tasks"),
                sources(*OWN_SOURCES, *DRAWING_SOURCES),
                versions("torch", "onnx", "onnxscript", "onnxruntime", *DRAWING),
                versions("tokenizers", "transformers") if _is_folder(build) else None,
            ),
            (manifest,),
            lambda: export(build, say, sourced),
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
                    (certified_batch(build), certified_files(build), certified_measures(build)),
                    _origin_inputs(build),
                    sources("certification", "routing", "runtime", "artifacts", "sources"),
                    sources("preprocessing", "tasks"),
                    sources("networks", "intervals.py", *OWN_SOURCES, *DRAWING_SOURCES),
                    versions("torch", "onnxruntime", *DRAWING),
                ),
                (certificates,),
                lambda: calibrate(build, say, sourced, on_progress),
                # More may be certified later, on other machines and other rows.
                lambda: _calibrated(build),
            )
        )
    found.append(
        Step(
            "package",
            lambda: (
                sha256_of(manifest),
                hashes((certificates,)),
                sha256_of(build.handler) if build.handler.is_file() else None,
                build.serving.model_dump(mode="json"),
                sources("hosts/torchserve/packaging.py", "artifacts/serving.py"),
                versions("torch-model-archiver"),
            ),
            (build.archive,),
            lambda: make_archive(build),
            lambda: _packaged(build),
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
            sources("networks", "training"),
            versions("torch", *DRAWING),
            _shipped_hash(build),
        ),
        (checkpoint / WEIGHTS, checkpoint / "config.json"),
        lambda: take_or_train(build, on_epoch, say, on_progress),
    )


def _tuning(build: BuildFile, say: Say) -> Step:
    assert build.brought is not None and build.tuning is not None
    tuning, untuned = build.tuning, build.brought.model_copy(update={"tuned": None})
    return Step(
        "tune",
        lambda: (
            tuning.model_dump(mode="json"),
            [untuned.model_dump(mode="json"), hashes(tuple(untuned.files(build.root)))],
            sources("training/tuning", "building/tuned.py", "sources", "preprocessing"),
            versions("torch", "transformers", "peft"),
        ),
        (build.tuned,),
        lambda: tune_source(build, say),
    )


def _shipped_hash(build: BuildFile) -> str | None:
    # From the JSON beside the weights; a damaged copy must not cause training.
    trained = build.trained
    try:
        shipped = read_shipped(build.shipped)
    except CheckpointError:
        return None
    if shipped is None or difference(shipped, trained.recipe, trained.network, trained.training):
        return None
    return shipped.weights_sha256


def _is_folder(build: BuildFile) -> bool:
    return build.brought is not None and build.brought.source.folder is not None


def _origin_inputs(build: BuildFile) -> Any:
    """Everything that the origin of a build file depends on."""
    if build.brought is None:
        return hashes((build.checkpoint / WEIGHTS, build.checkpoint / "config.json"))
    brought = build.brought
    return [brought.model_dump(mode="json"), hashes(tuple(brought.files(build.root)))]


def _exported(build: BuildFile) -> str | None:
    """The manifest, if every file in it has the right hash."""
    try:
        open_artifact(build.artifact)
    except ArtifactError:  # missing or damaged
        return None
    return sha256_of(build.artifact / MANIFEST)


def _packaged(build: BuildFile) -> list[bool | str] | None:
    """The newest version; it may not be in force, because a rollback stays in force."""
    try:
        have = versions_of(build.archive.parent, build.archive.stem)
    except ConfigError:  # there is none
        return None
    in_force = any(one.in_force and one.number for one in have)
    return [in_force, sha256_of(have[0].archive)]


def run_steps(
    build: BuildFile,
    on_epoch: OnEpoch,
    say: Say,
    on_progress: OnProgress = quiet,
    sourced: Sourced | None = None,
) -> None:
    """Run every step whose inputs or outputs changed since the last build.

    Content decides, not time stamps: ``.build/NAME.json`` keeps the hash of each step's inputs
    and of its outputs.

    Args:
        build: The build file.
        on_epoch: Receives each epoch of training.
        say: Receives progress, line by line.
        on_progress: Receives what is being done.
        sourced: Of the build file, where it is read afterwards too.
    """
    record_file = build.root / ".build" / f"{build.name}.json"
    record = _read_record(record_file)
    for step in steps(build, on_epoch, say, on_progress, sourced):
        on_progress(f"{build.name}: {step.name}", None)
        inputs = fingerprint(step.inputs())
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
    except (FileNotFoundError, ValueError):  # no build yet, or an unreadable record: build
        return {}
    return record if isinstance(record, dict) else {}


def _calibrated(build: BuildFile) -> str | None:
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
