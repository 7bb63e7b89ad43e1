"""Is it worth it? Which inputs may leave a residual network early, by which signal, at what price.

Trains small networks on two moons, digits and MNIST-1D, five seeds of each, and judges every way
of deciding alike: thresholds proposed on one split, certified on the next, judged on a third and on
the same rows moved off what was trained on. Writes docs/study.md and its figures, keeping the text
above the mark, and prints one JSON line. What is finished is kept in .build/study and not done
again while the settings and the measuring code are the same.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import subprocess
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import study_cells
import study_contenders
import study_measure
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from study_cells import Cell, cells
from study_page import summary, write_page

from skipserve import routing
from skipserve.cores import usable_cores
from skipserve.errors import CheckpointError, TrainingDiverged
from skipserve.files import replace_text
from skipserve.networks import ResidualNetwork
from skipserve.training.checkpoint import load_checkpoint, save_checkpoint
from skipserve.training.loop import fit
from skipserve.training.recipes import Recipe

ROOT = Path(__file__).parent.parent
ROUTING = Path(routing.__file__ or "").parent
SOURCES = [
    *(Path(module.__file__ or "") for module in (study_cells, study_contenders, study_measure)),
    *sorted((ROOT / "benchmarks" / "laboratory").glob("*.py")),
    *(ROUTING / name for name in ("judge.py", "propose.py", "stopping.py")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="training runs a network, 2 or more")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the machinery")
    parser.add_argument("--only", help="cells whose name holds this: task/variant/seed")
    parser.add_argument("--page-only", action="store_true", help="from the cells that are finished")
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument(
        "--cells", type=Path, default=ROOT / ".build" / "study", help="their folder"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", help="folder of page and figures"
    )
    parser.add_argument("--wait-while", type=Path, help="start no cell while this file exists")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds} leaves no interval; give 2 or more")
    wanted = cells(options.seeds, options.quick)
    todo = [cell for cell in wanted if not options.only or options.only in cell.name]
    if not todo:
        parser.error(f"--only {options.only}: no such cell; one of them is {wanted[0].name}")
    if not options.page_only:
        run_all(options, todo)
    found = [result for cell in wanted if (result := finished(cell, options.cells)) is not None]
    if not found:
        parser.error(f"no cell in {options.cells} is finished; leave --page-only out")
    options.out.mkdir(parents=True, exist_ok=True)
    write_page(options.out / "study.md", found, len(wanted), hardware())
    counts = {"cells": len(found), "of": len(wanted)}
    print(json.dumps({"benchmark": "study", **counts, **summary(found)}))


def run_all(options: argparse.Namespace, todo: list[Cell]) -> None:
    missing = [cell for cell in todo if finished(cell, options.cells) is None]
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    # Not forked: torch's threads would not survive it.
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(options.processes, mp_context=spawn) as pool,
    ):
        bar = progress.add_task("cells", total=len(todo), completed=len(todo) - len(missing))
        runs = {pool.submit(run_cell, options, cell.name): cell.name for cell in missing}
        for run in as_completed(runs):
            progress.console.print(f"{runs[run]}: {run.result():.0f} s")
            progress.advance(bar)


def run_cell(options: argparse.Namespace, name: str) -> float:
    """Train, measure and keep one cell, known by name as its functions do not travel; seconds."""
    while options.wait_while and options.wait_while.exists():
        sleep(1)
    torch.set_num_threads(1)
    cell = next(cell for cell in cells(options.seeds, options.quick) if cell.name == name)
    start, cpu = perf_counter(), process_time()
    recipe = cell.task.recipe(cell.seed)
    result: dict[str, Any] = settings(cell) | {"made_from": fingerprint(cell)}
    try:
        network = trained(cell, recipe, options.cells / f"{cell.name}.checkpoint")
    except TrainingDiverged as error:
        result["diverged"] = str(error)
    else:
        result |= study_measure.measure(cell, network, recipe)
    result |= {"seconds": perf_counter() - start, "cpu_seconds": process_time() - cpu}
    file = options.cells / f"{cell.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(result))
    return result["seconds"]


def trained(cell: Cell, recipe: Recipe, directory: Path) -> ResidualNetwork:
    """The cell's network: from an earlier run if it was trained alike, or trained now."""
    config, training = cell.network(recipe), cell.training(recipe)
    try:
        checkpoint = load_checkpoint(directory)
    except CheckpointError:
        pass
    else:
        if (checkpoint.network.config, checkpoint.run.training) == (config, training):
            return checkpoint.network
    network, history = fit(config, recipe, training)
    save_checkpoint(directory, network, recipe.name, training, history)
    return network


def finished(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """What was measured before, if the same would be measured now."""
    try:
        result: dict[str, Any] = json.loads((folder / f"{cell.name}.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return result if result.get("made_from") == fingerprint(cell) else None


def settings(cell: Cell) -> dict[str, Any]:
    recipe = cell.task.recipe(cell.seed)
    return {
        "task": cell.task.name,
        "variant": cell.variant.key,
        "seed": cell.seed,
        "network": cell.network(recipe).model_dump(mode="json"),
        "training": cell.training(recipe).model_dump(mode="json"),
    }


def fingerprint(cell: Cell) -> str:
    text = json.dumps(settings(cell), sort_keys=True) + measuring_code()
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def measuring_code() -> str:
    # Comments and layout may change.
    return "".join(ast.dump(ast.parse(source.read_text())) for source in SOURCES)


def hardware() -> str:
    lines = subprocess.check_output(["lscpu"], text=True).splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if "Model name" in line)
    return f"{usable_cores()} cores of {model}, one thread a process; PyTorch {torch.__version__}"


if __name__ == "__main__":
    main()
