"""The build file that `skipserve bring` writes, checked before anything slow is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from skipserve.artifacts.manifest import Name
from skipserve.building.buildfile import parse_build_file
from skipserve.errors import ConfigError
from skipserve.intervals import spelled
from skipserve.routing.config import RISKS
from skipserve.schema import expected
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.sources.named import require_sources
from skipserve.sources.picture_files import LABEL
from skipserve.tasks import TaskConfig

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


def proposed_file(options: BringOptions, project: Path) -> tuple[str, Path, str]:
    """The name of a network, its build file, and what that shall say.

    Args:
        options: What is asked.
        project: Folder that gets export/.

    Raises:
        ConfigError: If the source, the rows, the name, the risk or the task is wrong, or the build
            file is there and says something else.
        CutError: If the source is a file that holds no graph.
    """
    require_options(options)
    require_sources(options.source, options.data, options.fit, project)
    return planned_file(options, project)


def require_options(options: BringOptions) -> None:
    """Refuse a risk or a name that no source could go with.

    Raises:
        ConfigError: Naming the option.
    """
    if not 0 < options.risk < 1:
        raise ConfigError(
            f"--risk must lie between 0 and 1, got {spelled(options.risk)}; 1% is 0.01"
        )
    if options.name is not None:
        _require_name(options.name)


def planned_file(options: BringOptions, project: Path) -> tuple[str, Path, str]:
    """The same as :func:`proposed_file` of a source and rows that are not there yet.

    Raises:
        ConfigError: If the name, the risk or the task is wrong, or the build file is there and says
            something else.
    """
    require_options(options)
    name = options.name or _name_of(options.source)
    file = project / "export" / f"{name}.toml"
    text = build_text(options, name, project)
    parse_build_file(text, file)
    if file.is_file() and file.read_text() != text:
        raise ConfigError(
            f"{file} is there already and says something else; build it as it is with "
            f"`skipserve build {file}`, remove it, or bring this network under another --name"
        )
    return name, file, text


def _require_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        told = expected(error.errors()[0])
        raise ConfigError(f"--name is {name!r}; expected {told}") from None


def _name_of(source: str) -> str:
    stem = source.rpartition(":")[2] if ".onnx" not in source else Path(source).stem
    if Path(source).is_dir():
        stem = Path(source).resolve().name
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")[:LARGEST_NAME]
    if not name:
        raise ConfigError(f"{source!r} gives no name for the model; name it with --name")
    return name


def build_text(options: BringOptions, name: str, project: Path) -> str:
    """The build file of a brought network, commented."""
    risks = sorted({*RISKS, options.risk})
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
        f"risk = {spelled(options.risk)}                  "
        "# certified ε used when a request names no risk",
        "batch_size = 16",
        "",
    ]
    return "\n".join(lines)


# Comments for the signals.
_SIGNALS = {
    "margin": "margin | confidence | agreement | norm | projected_norm",
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
        lines.append(
            f"tolerance = {spelled(task.tolerance)}".ljust(29) + "# from full depth, its units"
        )
    if task.kind == "score":
        top = f"top = {task.top}" if task.top else "# top = 10"
        lines.append(top.ljust(29) + "# certify queries: are the same documents the first so many?")
    if task.kind == "embed":
        lines.append(f"cosine = {spelled(task.cosine)}")
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
