"""Known answers: rows of a model, run through the artifact that is served.

They are the test rows of its recipe, or rows that were brought for it; without either, the few that
its manifest holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import ConfigError
from skipserve.loadtest.payloads import Choice, Pool
from skipserve.loadtest.target import Running, Target
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows, check_rows
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match
from skipserve.sources.values import values_of
from skipserve.tasks import Task, Unit, counted

# Decimals a client would send; the engine is asked about the rounded rows.
DECIMALS = 5
MOST_ROWS = 4000
BATCH = 64
# A row whose two best classes are nearer than this may be answered either way in another batch.
TIES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        pool: Its rows and answers.
        running: What the service runs it on.
        files: The sha256 of every file that runs, by name.
        artifact: Where the answers come from.
        risks: The ε in force, by what is asked of the router; ``None`` at full depth.
        reasons: Why a router that was asked for is off, by what was asked.
        foreseen: Share of the pool's rows that disagree at these thresholds, in this process; of
            no model whose certificate counts queries.
        has_router: Whether the model has one.
        unit: What its certificate counts; a load test sends rows.
    """

    pool: Pool
    running: Running
    files: dict[str, str]
    artifact: Path
    risks: dict[str, float | None]
    reasons: dict[str, str]
    foreseen: dict[str, float]
    has_router: bool
    unit: Unit = "rows"

    @property
    def name(self) -> str:
        """The model's."""
        return self.pool.model


@dataclass(frozen=True)
class Known:
    """A model as its artifact describes it, before any service is asked.

    Attributes:
        name: Of the model.
        has_router: Whether it has one.
        unit: What its certificate counts.
    """

    name: str
    has_router: bool
    unit: Unit


def read_models(artifacts: Path, names: Iterable[str]) -> list[Known]:
    """Look up the artifacts that give the known answers.

    Args:
        artifacts: Folder of them.
        names: Of the models.

    Raises:
        ArtifactError: If one is missing or damaged.
    """
    found = [open_artifact(artifacts / name).manifest for name in names]
    return [Known(one.name, one.router is not None, counted(one.task)) for one in found]


def make_subject(
    target: Target,
    directory: Path,
    choices: Iterable[Choice],
    rows: int = MOST_ROWS,
    data: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Subject:
    """Compute the answers that the service should give for one model.

    Args:
        target: Serves it.
        directory: Its artifact.
        choices: Of this model in the mix.
        rows: Most rows to use.
        data: A file of rows, in place of the recipe's or the manifest's own.
        say: Receives progress, line by line.

    Raises:
        ArtifactError: If there is no artifact.
        ConfigError: If the service serves another model of that name, or refuses a choice, or the
            file does not hold rows of the model.
        LoadTestError: If nothing answers.
    """
    choices = list(choices)
    name = choices[0].model
    artifact = open_artifact(directory)
    manifest = artifact.manifest
    names = tuple(spec.name for spec in manifest.signature.inputs)
    example = _json(_example(manifest), names)
    task, said = manifest.task, manifest.task.model_dump_json()
    trial = Pool(name, manifest.depth, task.width, example, [None], inputs=names, task=said)
    asked = target.ask(trial, Choice(name))  # an unknown model fails before anything slow
    answers = {choice.router: target.ask(trial, choice) for choice in choices}
    answers.setdefault("default", asked)
    running = _running(target, name, artifact)
    say(f"working out the answers of {name}")
    engine = _engine(artifact, running)
    sent = _rounded(_rows(artifact, data)[:rows])
    full = _answers(engine, sent, None)
    clear = _clear(task, full, TIES[running.precision])
    if not clear.any():
        raise ConfigError(
            f"no row of {name} has a clear answer to compare with; bring others with --data"
        )
    sent, full = sent[clear], full[clear]
    routed = {}
    for word, answer in answers.items():
        if answer.router == "on" and any(choice.router == word for choice in choices):
            routed[word] = _answers(engine, sent, answer.risk)
    pool = Pool(
        name,
        manifest.depth,
        task.width,
        _json(sent, names),
        _compared(task, full),
        {word: _compared(task, one) for word, one in routed.items()},
        names,
        said,
    )
    return Subject(
        pool,
        running,
        engine.files,
        directory,
        {word: answer.risk for word, answer in answers.items()},
        {word: answer.router_reason for word, answer in answers.items() if answer.router_reason},
        {
            word: float((~task.agree(one, full)).mean())
            for word, one in routed.items()
            if counted(task) == "rows"
        },
        manifest.router is not None,
        counted(task),
    )


def _running(target: Target, name: str, artifact: Artifact) -> Running:
    running = target.models().get(name)
    if running is None:
        raise ConfigError(
            f"the service at {target.host} answers for {name}, and the metrics at {target.metrics} "
            "do not know it; they are of another service: name its own port with --metrics-port"
        )
    ours = artifact.manifest.source.sha256
    if not ours.startswith(running.checkpoint):
        raise ConfigError(
            f"the service runs {name} from source {running.checkpoint}, {artifact.directory} "
            f"is from {ours[:12]}: its answers would not be those to expect; start the service "
            "from this artifact, or name its folder with --artifacts"
        )
    return running


def _engine(artifact: Artifact, running: Running) -> Engine:
    backend: Any = running.backend
    precision: Any = running.precision
    provider: Any = running.provider
    return Engine(artifact, backend=backend, precision=precision, provider=provider, threads=0)


def _rows(artifact: Artifact, data: Path | None) -> Rows:
    manifest = artifact.manifest
    if data is not None:
        columns, values = read_columns(data), values_of(artifact)
        return match(columns, manifest.signature, {}, None, str(data), values, manifest.query).rows
    if manifest.recipe is None:
        return _example(manifest)
    from skipserve.training.recipes import open_recipe

    (spec,) = manifest.signature.inputs
    return Rows({spec.name: open_recipe(manifest.recipe).draw("test").inputs.numpy()})


def _example(manifest: Manifest) -> Rows:
    """The rows that a manifest holds."""
    rows = [manifest.example.inputs]
    if manifest.depths is not None:
        rows += [manifest.depths.shallow, manifest.depths.deep]
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return check_rows(arrays, manifest.signature, manifest.name)


def _answers(engine: Engine, rows: Rows, risk: float | None) -> NDArray[np.float32]:
    return engine.run_batches(rows, engine.setting(risk), BATCH).answers


def _clear(task: Task, answers: NDArray[np.float32], tie: float) -> NDArray[np.bool_]:
    """Which rows are clear of ties, so that another machine decides alike [N]."""
    if task.border is not None:
        label, at = task.border
        return np.asarray(np.abs(answers[:, label] - at) > tie)
    if task.link == "softmax":
        best = np.sort(answers, axis=1)
        return np.asarray(best[:, -1] - best[:, -2] > tie)
    if task.link == "sigmoid":
        return np.asarray(np.abs(answers - 0.5).min(axis=1) > tie)
    return np.ones(len(answers), dtype=bool)


def _compared(task: Task, answers: NDArray[np.float32]) -> list[Any]:
    """The expected replies: decisions, or the answers themselves."""
    labels = task.labels(answers)
    found: list[Any] = (answers if labels is None else labels).tolist()
    return found


def _rounded(rows: Rows) -> Rows:
    """The rows as the service reads them: rounded to the decimals that are sent."""
    return Rows({name: _decimals(one).astype(one.dtype) for name, one in rows.tensors.items()})


def _decimals(rows: NDArray[Any]) -> NDArray[Any]:
    # As FP64, because the shortest decimals of an FP32 number read as FP64 are long.
    return np.round(rows.astype(np.float64), DECIMALS) if rows.dtype.kind == "f" else rows


def _json(rows: Rows, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Each row as the JSON of every input."""
    columns = [
        [msgspec.json.encode(row).decode() for row in _decimals(rows.tensors[name]).tolist()]
        for name in names
    ]
    return list(zip(*columns, strict=True))
