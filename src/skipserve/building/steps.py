"""Steps of a build; a step runs only if its inputs or outputs changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.building.buildfile import BuildFile
from skipserve.building.fingerprints import fingerprint, hashes, sources, versions
from skipserve.building.inputs import brought_inputs, is_folder, origin_inputs, shipped_hash
from skipserve.building.outcomes import calibrated, exported, packaged
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
from skipserve.files import held, replace_text, sha256_of
from skipserve.training.history import WEIGHTS

# Sources that every step depends on.
OWN_SOURCES = (
    *(
        f"building/{name}.py"
        for name in ("fingerprints", "inputs", "outcomes", "products", "sourced", "steps")
    ),
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
        found.append(_tuning(build, say, sourced))
    asked = [None if build.router is None else build.router.model_dump(mode="json")]
    asked.append(build.exits.model_dump(mode="json"))
    found.append(
        Step(
            "export",
            lambda: (
                build.name,
                origin_inputs(build, sourced),
                build.export.model_dump(mode="json"),
                asked,
                sources("networks", "routing", "artifacts", "graph", "sources", "runtime"),
                sources("preprocessing", "tasks"),
                sources(*OWN_SOURCES, *DRAWING_SOURCES),
                versions("torch", "onnx", "onnxscript", "onnxruntime", *DRAWING),
                versions("tokenizers", "transformers") if is_folder(build) else None,
            ),
            (manifest,),
            lambda: export(build, say, sourced),
            lambda: exported(build),
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
                    origin_inputs(build, sourced),
                    sources("certification", "routing", "runtime", "artifacts", "sources"),
                    sources("preprocessing", "tasks"),
                    sources("networks", "intervals.py", *OWN_SOURCES, *DRAWING_SOURCES),
                    versions("torch", "onnxruntime", *DRAWING),
                ),
                (certificates,),
                lambda: calibrate(build, say, sourced, on_progress),
                # More may be certified later, on other machines and other rows.
                lambda: calibrated(build),
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
            lambda: packaged(build),
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
            shipped_hash(build),
        ),
        (checkpoint / WEIGHTS, checkpoint / "config.json"),
        lambda: take_or_train(build, on_epoch, say, on_progress),
    )


def _tuning(build: BuildFile, say: Say, sourced: Sourced) -> Step:
    assert build.brought is not None and build.tuning is not None
    tuning, untuned = build.tuning, build.brought.model_copy(update={"tuned": None})
    return Step(
        "tune",
        lambda: (
            tuning.model_dump(mode="json"),
            brought_inputs(untuned, build, sourced),
            sources("training/tuning", "building/tuned.py", "sources", "preprocessing"),
            versions("torch", "transformers", "peft"),
        ),
        (build.tuned,),
        lambda: tune_source(build, say),
    )


def run_steps(
    build: BuildFile,
    on_epoch: OnEpoch,
    say: Say,
    on_progress: OnProgress = quiet,
    sourced: Sourced | None = None,
) -> None:
    """Run every step whose inputs or outputs changed since the last build.

    Content decides, not time stamps: ``.build/NAME.json`` keeps the hash of each step's inputs
    and of its outputs. Of two builds of one model the second waits for the first.

    Args:
        build: The build file.
        on_epoch: Receives each epoch of training.
        say: Receives progress, line by line.
        on_progress: Receives what is being done.
        sourced: Of the build file, where it is read afterwards too.
    """
    records = build.root / ".build"
    own = records / build.name
    own.mkdir(parents=True, exist_ok=True)
    waiting = f"{build.name}: another build of it is running; waiting for its end"
    with held(own, lambda: say(waiting)):
        _run_steps(build, records / f"{build.name}.json", on_epoch, say, on_progress, sourced)


def _run_steps(
    build: BuildFile,
    record_file: Path,
    on_epoch: OnEpoch,
    say: Say,
    on_progress: OnProgress,
    sourced: Sourced | None,
) -> None:
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
        replace_text(record_file, json.dumps(record, indent=2) + "\n")


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):  # no build yet, or an unreadable record: build
        return {}
    return record if isinstance(record, dict) else {}
