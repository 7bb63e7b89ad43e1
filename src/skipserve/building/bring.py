"""Bringing a network: write a build file, build it, and say what routing is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.building.bring_file import BringOptions, planned_file, proposed_file
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.building.products import OnProgress, quiet
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth, measure_worth
from skipserve.files import replace_text, replacing_file
from skipserve.sources.arrays import write_arrays

Say = Callable[[str], None]


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
        ConfigError: If the name, the data or the risk is wrong, or another build file has the name.
        CutError: If the network cannot be cut.
    """
    name, file, text = proposed_file(options, project)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = not file.is_file()  # one that says something else was refused
    replace_text(file, text)
    try:
        build = read_build_file(file)
        sourced = Sourced(build)
        run_steps(build, lambda epoch: None, say, on_progress, sourced)
    except BaseException:
        if fresh:
            file.unlink(missing_ok=True)
        raise
    on_progress(f"{name}: measuring", None)
    return BringOutcome(build, measure_worth(build.artifact, sourced.rows, options.risk))


def bring_objects(source: Any, rows: Any, said: Mapping[str, Any], project: Path) -> Artifact:
    """Bring objects in memory: they are written to files of the project first.

    Nothing is written before the name and the build file have been looked at: sources of another
    model of that name stay as they are.

    Args:
        source: As a person names it, or a torch module and an example of its inputs.
        rows: A file of rows, or arrays by input.
        said: The other options of :class:`BringOptions`; the name among them.
        project: Folder that gets them.

    Raises:
        ConfigError: As :func:`bring`, or if the arrays hold Python objects.
        CutError: As :func:`bring`, or if the module cannot be exported.
    """
    folder = project / "sources"
    graph, table = folder / f"{said['name']}.onnx", folder / f"{said['name']}.npz"
    named = str(graph) if isinstance(source, tuple) else str(source)
    data = table if isinstance(rows, Mapping) else Path(rows)
    options = BringOptions(named, data, **said)
    planned_file(options, project)
    if isinstance(source, tuple):
        from skipserve.sources.module import module_graph

        module, example = source
        model, _ = module_graph(module, example, said["name"])
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_file(graph) as fresh:
            onnx.save(model, fresh)
    if isinstance(rows, Mapping):
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(table, {str(key): np.asarray(one) for key, one in rows.items()})
    return open_artifact(bring(options, project).build.artifact)
