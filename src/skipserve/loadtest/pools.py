"""Known answers: test rows of a model's recipe, run through the artifact that is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.errors import ConfigError
from skipserve.loadtest.payloads import Choice, Pool
from skipserve.loadtest.target import Running, Target
from skipserve.runtime.engine import Engine
from skipserve.training.recipes import open_recipe

# Decimals a client would send; the engine is asked about the rounded rows.
DECIMALS = 5
MOST_ROWS = 4000
BATCH = 64
# A row whose two best classes are nearer than this may be answered either way in another batch.
TIES = {"fp32": 1e-4, "fp16": 2e-2}


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        pool: Its rows and answers.
        running: What the service runs it on.
        file_sha256: Of the model file.
        artifact: Where the answers come from.
        risks: The ε in force, by what is asked of the router; ``None`` at full depth.
        reasons: Why a router that was asked for is off, by what was asked.
        foreseen: Share of the pool's rows that disagree at these thresholds, in this process.
        has_router: Whether the model has one.
    """

    pool: Pool
    running: Running
    file_sha256: str
    artifact: Path
    risks: dict[str, float | None]
    reasons: dict[str, str]
    foreseen: dict[str, float]
    has_router: bool


def make_subject(
    target: Target,
    directory: Path,
    choices: Iterable[Choice],
    rows: int = MOST_ROWS,
    say: Callable[[str], None] = lambda line: None,
) -> Subject:
    """Work out the answers of one model as the service should give them.

    Args:
        target: Serves it.
        directory: Its artifact.
        choices: Of this model in the mix.
        rows: Most rows of the test split to use.
        say: Told about progress.

    Raises:
        ArtifactError: If there is no artifact.
        ConfigError: If the service serves another checkpoint, or refuses a choice.
        LoadTestError: If nothing answers.
    """
    choices = list(choices)
    name = choices[0].model
    artifact = open_artifact(directory)
    manifest = artifact.manifest
    example = msgspec.json.encode(manifest.example.inputs).decode()
    trial = Pool(name, manifest.depth, manifest.classes, [example], [manifest.example.label])
    full = target.ask(trial, Choice(name))  # 404 before anything slow
    answers = {choice.router: target.ask(trial, choice) for choice in choices}
    answers.setdefault("default", full)
    running = _running(target, name, artifact)
    say(f"working out the answers of {name}")
    engine = _engine(artifact, running)
    samples = open_recipe(manifest.recipe).draw("test").inputs[:rows].numpy()
    sent = np.round(samples.astype(np.float64), DECIMALS).astype(np.float32)
    probabilities = _probabilities(engine, sent, None)
    best = np.sort(probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] > TIES[running.precision]
    sent, labels = sent[clear], probabilities.argmax(axis=1)[clear]
    routed = {}
    for word, answer in answers.items():
        if answer.router == "on" and any(choice.router == word for choice in choices):
            routed[word] = _probabilities(engine, sent, answer.risk).argmax(axis=1).tolist()
    pool = Pool(
        name,
        manifest.depth,
        manifest.classes,
        [msgspec.json.encode(row).decode() for row in _decimals(sent)],
        labels.tolist(),
        routed,
    )
    return Subject(
        pool,
        running,
        engine.file_sha256,
        directory,
        {word: answer.risk for word, answer in answers.items()},
        {word: answer.router_reason for word, answer in answers.items() if answer.router_reason},
        {word: float(np.mean(np.array(one) != labels)) for word, one in routed.items()},
        manifest.router is not None,
    )


def _running(target: Target, name: str, artifact: Artifact) -> Running:
    running = target.models()[name]
    ours = artifact.manifest.checkpoint_sha256
    if not ours.startswith(running.checkpoint):
        raise ConfigError(
            f"the service runs {name} from checkpoint {running.checkpoint}, {artifact.directory} "
            f"is from {ours[:12]}: its answers would not be those to expect; start the service "
            "from this artifact, or name its folder with --artifacts"
        )
    return running


def _engine(artifact: Artifact, running: Running) -> Engine:
    backend: Any = running.backend
    precision: Any = running.precision
    provider: Any = running.provider
    return Engine(artifact, backend=backend, precision=precision, provider=provider, threads=0)


def _probabilities(
    engine: Engine, rows: NDArray[np.float32], risk: float | None
) -> NDArray[np.float32]:
    return engine.run_batches(rows, engine.setting(risk), BATCH).probabilities


def _decimals(rows: NDArray[np.float32]) -> list[Any]:
    # As FP64, because the shortest decimals of an FP32 number read as FP64 are long.
    decimals: list[Any] = np.round(rows.astype(np.float64), DECIMALS).tolist()
    return decimals
