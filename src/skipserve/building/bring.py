"""Bringing a network: write a build file, build it, and say what routing is worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.building.products import OnProgress, quiet
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth, measure_worth
from skipserve.errors import ConfigError
from skipserve.files import replace_text
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.sources.named import require_sources
from skipserve.sources.picture_files import LABEL
from skipserve.tasks import TaskConfig

Say = Callable[[str], None]
LARGEST_NAME = 64


@dataclass(frozen=True)
class BringOptions:
    """Options of `skipserve bring`.

    Attributes:
        source: An ``.onnx`` file, a Hugging Face folder, or ``module:function``.
        data: A file of rows, or a folder of pictures with a folder for each class.
        fit: A file of rows that the network was trained on, or ``None``.
        labels: The column of true classes, or ``None``.
        name: Of the model; by default that of the source.
        risk: ε.
        precision: ``fp32`` or ``int8``.
        text: Columns of texts: one, or two for pairs; found where none is named.
        task: What its answers are: ``classify``, ``multilabel``, ``regress``, ``embed``, ``score``;
            ``None``: what a folder proposes, of other sources ``classify``.
        tolerance: Of ``regress`` and ``score``: the largest difference that agrees.
        picture: The column of pictures; found where none is named.
        top: Of ``score``: documents of a query that count together, or ``None``.
        query: The column of queries; the first text of each pair by default.
    """

    source: str
    data: Path
    fit: Path | None = None
    labels: str | None = None
    name: str | None = None
    risk: float = 0.01
    precision: str = "fp32"
    text: tuple[str, ...] = ()
    task: str | None = None
    tolerance: float | None = None
    picture: str | None = None
    top: int | None = None
    query: str | None = None


@dataclass(frozen=True)
class BringOutcome:
    """The result of bringing a network.

    Attributes:
        build: The build file that was written.
        worth: What routing is worth, or why it is worth nothing, in words.
    """

    build: BuildFile
    worth: Worth | str

    @property
    def verdict(self) -> str:
        """One sentence."""
        return self.worth if isinstance(self.worth, str) else self.worth.sentence()


def bring(
    options: BringOptions,
    project: Path,
    say: Say = lambda line: None,
    on_progress: OnProgress = quiet,
) -> BringOutcome:
    """Write the build file of a network and run every step of it.

    Args:
        options: What is asked.
        project: Folder that gets export/, artifacts/ and model_store/.
        say: Receives progress, line by line.
        on_progress: Receives what is being done.

    Raises:
        ConfigError: If the name, the data or the risk is wrong.
        CutError: If the network cannot be cut.
    """
    if not 0 < options.risk < 1:
        raise ConfigError(f"--risk must lie between 0 and 1, got {options.risk:g}; 1% is 0.01")
    require_sources(options.source, options.data, options.fit)
    name = options.name or _name_of(options.source)
    file = project / "export" / f"{name}.toml"
    text = build_text(options, name, project)
    if file.is_file() and file.read_text() != text and not options.name:
        raise ConfigError(
            f"{file} is there already and says something else; build it as it is with "
            f"`skipserve build {file}`, or bring this network under another --name"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text() if file.is_file() else None
    replace_text(file, text)
    try:
        build = read_build_file(file)
        sourced = Sourced(build)
        run_steps(build, lambda epoch: None, say, on_progress, sourced)
    except BaseException:
        # On an error, the build file is restored or removed.
        if before is None:
            file.unlink(missing_ok=True)
        else:
            replace_text(file, before)
        raise
    on_progress(f"{name}: measuring", None)
    return BringOutcome(build, measure_worth(build.artifact, sourced.rows, options.risk))


def _name_of(source: str) -> str:
    stem = source.rpartition(":")[2] if ".onnx" not in source else Path(source).stem
    if Path(source).is_dir():
        stem = Path(source).resolve().name
    name = re.sub(r"\W+", "_", stem).strip("_")[:LARGEST_NAME]
    if not name:
        raise ConfigError(f"{source!r} gives no name for the model; name it with --name")
    return name


def build_text(options: BringOptions, name: str, project: Path) -> str:
    """The build file of a brought network, commented."""
    risks = sorted({0.005, 0.01, 0.02, 0.05, options.risk})
    said = {"kind": options.task, "tolerance": options.tolerance, "top": options.top}
    folder = Path(options.source) if Path(options.source).is_dir() else None
    given = {key: value for key, value in said.items() if value is not None}
    task = task_of(folder, given, "task", pairs=len(options.text) > 1)
    signal = task.signal
    source = f"module = {_quoted(options.source)}"
    if options.source.endswith(".onnx"):
        source = f"onnx = {_quoted(_relative(Path(options.source), project))}"
    elif folder is not None:
        source = f"folder = {_quoted(_relative(folder, project))}"
    lines = [
        f"# A network that was brought. `skipserve build export/{name}.toml` redoes what changed.",
        "",
        f"name = {_quoted(name)}",
        "",
        "[source]",
        source,
        "",
        *_task_lines(task),
        "",
        "[data]",
        f"rows = {_quoted(_relative(options.data, project))}"
        "   # split by content: fit, propose, certify, test",
    ]
    if options.fit is not None:
        lines.append(
            f"fit = {_quoted(_relative(options.fit, project))}"
            "   # heads and guards are fitted on these; the network may know them"
        )
    labels = options.labels or (LABEL if options.data.is_dir() else None)
    if labels is not None:
        lines.append(f"labels = {_quoted(labels)}")
    if options.picture is not None:
        lines.append(f"picture = {_quoted(options.picture)}")
    if options.text:
        named = ", ".join(map(_quoted, options.text))
        lines.append(f"text = {named if len(options.text) == 1 else f'[{named}]'}")
    if options.query is not None:
        lines.append(f"query = {_quoted(options.query)}")
    lines += [
        '# columns = { input_ids = "ids" }   # what an input is called in the files',
        "",
        "[export]",
        'formats = ["onnx"]',
        f"precisions = [{_quoted(options.precision)}]       # fp32 | fp16 (GPU) | int8 (CPU)",
        "",
        "[exits]",
        'at = "auto"                  # where an exit saves more time than it costs',
        'first = "auto"               # the least depth that is safe under stress',
        'heads = "distilled"          # or "shared": the network\'s own head',
        "guard = 0.995                # share of ordinary rows that are inside every guard",
        "",
        "[router]",
        f'signal = "{signal}"'.ljust(29) + f"# {_SIGNALS[signal]}",
        f"risks = {risks}",
        "confidence = 0.95            # of each certificate",
        "",
        "[serving]",
        f"risk = {options.risk:g}                  # certified ε used when a request names no risk",
        "batch_size = 16",
        "",
    ]
    return "\n".join(lines)


# Comments for the signals.
_SIGNALS = {
    "margin": "margin | confidence | agreement | norm",
    "agreement": "agreement: the estimated chance that leaving agrees | norm",
}
_EXPLAINED = {
    "classify": "classify | multilabel | regress | embed | score",
    "multilabel": "any of several labels; disagreement: the set differs",
    "regress": "numbers; disagreement: one lies beyond the tolerance",
    "embed": "vectors; disagreement: the cosine to full depth is below",
    "score": "how well a pair goes together; disagreement: beyond the tolerance",
}


def _task_lines(task: TaskConfig) -> list[str]:
    """The section [task]."""
    kind = f"kind = {_quoted(task.kind)}".ljust(29) + f"# {_EXPLAINED[task.kind]}"
    lines = ["[task]", kind]
    if task.tolerance is not None:
        lines.append(f"tolerance = {task.tolerance:g}".ljust(29) + "# from full depth, its units")
    if task.kind == "score":
        top = f"top = {task.top}" if task.top else "# top = 10"
        lines.append(top.ljust(29) + "# certify queries: are the same documents the first so many?")
    if task.kind == "embed":
        lines.append(f"cosine = {task.cosine:g}")
    if task.kind == "classify":
        lines.append('# names = ["cat", "dog"]      # of the classes, in order')
        lines.append('# decide = { label = "dog", at = 0.9 }   # where a threshold decides')
    return lines


def _relative(file: Path, project: Path) -> str:
    whole = file.resolve()
    root = project.resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bring_objects(source: Any, rows: Any, said: Mapping[str, Any], project: Path) -> Artifact:
    """Bring objects in memory: they are written to files of the project first.

    Args:
        source: As a person names it, or a torch module and an example of its inputs.
        rows: A file of rows, or arrays by input.
        said: The other options of :class:`BringOptions`; the name among them.
        project: Folder that gets them.
    """
    name, folder = said["name"], project / "sources"
    if isinstance(source, tuple):
        from skipserve.sources.module import module_graph

        module, example = source
        model, _ = module_graph(module, example, name)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.onnx"
        onnx.save(model, file)
        source = str(file)
    if isinstance(rows, Mapping):
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / f"{name}.npz"
        arrays: dict[str, Any] = {str(key): np.asarray(value) for key, value in rows.items()}
        np.savez(data, **arrays)
        rows = data
    options = BringOptions(str(source), Path(rows), **said)
    return open_artifact(bring(options, project).build.artifact)
