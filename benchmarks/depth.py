"""Does skipped work become time? Routed graphs driven to known depths, and what routing costs.

    python benchmarks/depth.py [--rounds 15] [--only "conv net"]
    python benchmarks/depth.py --artifact artifacts/fashion .build/fashion/fashion-test.npz

Networks of random weights are sent to an even mix of depths, by thresholds of ±infinity; artifacts
to the mix their certificate at ε = 1 % gives on rows of a file. Each by three forms: the plain
graph, the stages that the engine steps through, and the one file with the router inside.

off    the engine asked for full depth, over the plain graph
bare   the stages without exits, one after the other, over the plain graph
full   stages and one file at full depth, over the plain graph
mix    time at the mix over the plain graph, beside c, the share of the plain graph's time that lies
       in what ran (stem and last head included)
heads  what reading the exits adds at the mix, over the plain graph; what is left of the mix over c
       is the cuts themselves and the engine
memory resident memory of the sessions, over that of the plain graph's

The mix is that of 32 rows, in as many batches as it takes. Ratios within one interleaved run,
medians of the rounds; with one thread in CPU time, so that they can be read on a busy machine too.
Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import psutil
from depth_cases import NETWORKS, RESNET, Case, artifact_case, random_case, random_network, resnet
from timing import interleaved, ratio

from skipserve.graph.memory import open_model
from skipserve.graph.policy import GUARD_LIMIT, THRESHOLDS
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles
from skipserve.runtime.stepper import Piece, Stepper
from skipserve.runtime.wave import Limits


def stage_calls(pieces: Sequence[Piece], rows: Rows) -> dict[Any, Callable[[], Any]]:
    """Each stage by itself on what the ones before it give, all rows at full depth."""
    tensors, work = dict(rows.tensors), {}
    for place, piece in enumerate(pieces):
        feeds = {name: tensors[name] for name in piece.inputs}
        tensors.update(zip(piece.outputs, piece.run(feeds), strict=True))
        work[place] = lambda p=piece, f=feeds: p.run(f)
    return work


def measure(case: Case, threads: int, batch: int, rounds: int) -> dict[str, Any]:
    plain, _ = open_onnx(case.files["plain"][0], threads=threads)
    routed, _ = open_onnx(case.files["routed"][0], threads=threads)
    stages = [open_onnx(file, threads=threads)[0] for file in case.files["stage"]]
    stepper = Stepper(stages, case.cuts, case.depth)
    files = OnnxFiles(plain, stepper, "cpu", case.depth)
    rows, mixes = case.rows[:batch], case.depths(batch)
    mixed = [case.limits(depths) for depths in mixes]
    everything = case.limits(np.full(batch, case.depth))
    off = Limits(np.full_like(everything.thresholds, np.inf), everything.guard)
    # A finite threshold that no signal reaches: with +inf the plain graph is run.
    never = Limits(np.full_like(off.thresholds, np.finfo(np.float32).max), off.guard)

    def one_file(asked: Limits) -> Any:
        feeds = {**rows.tensors, THRESHOLDS: asked.thresholds, GUARD_LIMIT: asked.guard}
        return routed.run(feeds)

    for depths, limits in zip(mixes, mixed, strict=True):
        assert stepper.run(rows, limits).depth_run.tolist() == depths.tolist()
        assert np.asarray(one_file(limits)[1]).tolist() == depths.tolist()
    clock = thread_time if threads == 1 else perf_counter
    times = interleaved(
        {
            "plain": lambda: plain.run(rows.tensors),
            "off": lambda: files.run(rows, off),
            "stages": lambda: files.run(rows, never),
            "one file": lambda: one_file(everything),
            "stages, mix": lambda: [files.run(rows, limits) for limits in mixed],
            "one file, mix": lambda: [one_file(limits) for limits in mixed],
        },
        rounds,
        clock,
    )
    base = times["plain"]
    for name in ("stages, mix", "one file, mix"):
        times[name] = [one / len(mixes) for one in times[name]]
    alone = stage_calls([OnnxPiece(open_model(one, threads=threads)) for one in case.bare], rows)
    read = stage_calls(stages, rows)
    spent = interleaved(
        {
            **{("bare", i): call for i, call in alone.items()},
            **{("read", i): call for i, call in read.items()},
        },
        rounds,
        clock,
    )
    parts = np.array([median(spent["bare", i]) for i in range(len(case.bare))])
    exits = np.array([median(spent["read", i]) for i in read]) - parts
    # A row that leaves behind a stage ran it and all before it.
    behind = {one.blocks: place for place, one in enumerate(case.cuts)}
    last = len(parts) - 1
    depths = np.concatenate(mixes)
    where = np.array([behind.get(depth, last) for depth in depths.tolist()])
    c = float((np.cumsum(parts) / parts.sum())[where].mean())
    heads = float(np.cumsum(exits)[where].mean() / median(base))
    return {
        "network": case.name,
        "threads": threads,
        "batch": batch,
        "plain_ms": 1e3 * median(base),
        "off": ratio(times["off"], base),
        "bare": float(parts.sum() / median(base)),
        "full": {name: ratio(times[name], base) for name in ("stages", "one file")},
        "mix": {name: ratio(times[f"{name}, mix"], base) for name in ("stages", "one file")},
        "run_rate": float(depths.mean() / case.depth),
        "c": c,
        "heads": heads,
    }


def resident(files: list[Path], rows: Rows) -> float:
    """Bytes that a plain graph and stages add to a process of its own, opened and run on rows."""
    process = psutil.Process()
    before = process.memory_info().rss
    plain, *stages = [open_onnx(file)[0] for file in files]
    plain.run(rows.tensors)
    if stages:
        stage_calls(stages, rows)
    return float(process.memory_info().rss - before)


def memory(case: Case) -> dict[str, float]:
    """Of the plain graph alone, and of all that the engine opens, in megabytes."""
    found = {}
    for name, files in (
        ("plain", case.files["plain"]),
        ("engine", [*case.files["plain"], *case.files["stage"]]),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(resident, (files, case.rows[:32])) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument(
        "--artifact", nargs=2, action="append", type=Path, default=[], metavar=("DIR", "ROWS")
    )
    parser.add_argument("--only", help="networks whose name holds this")
    options = parser.parse_args()
    print(
        "| network | threads | batch | plain ms | off | bare | full: stages, one file | c "
        "| mix: the same | heads |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    rows, memories = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases(options, Path(scratch)):
            for threads in options.threads:
                for batch in options.batches:
                    row = measure(case, threads, batch, options.rounds)
                    rows.append(row)
                    full, mix = (
                        ", ".join(f"{t:.2f}" for t in row[k].values()) for k in ("full", "mix")
                    )
                    print(
                        f"| {case.name} | {threads} | {batch} | {row['plain_ms']:.3f} "
                        f"| {row['off']:.3f} | {row['bare']:.2f} | {full} "
                        f"| {row['c']:.2f} | {mix} | {row['heads']:+.2f} |",
                        flush=True,
                    )
            memories[case.name] = memory(case)
    print("\n| network | resident MB: plain | engine | ratio |\n|---|---|---|---|")
    for name, one in memories.items():
        more = one["engine"] / one["plain"]
        print(f"| {name} | {one['plain']:.1f} | {one['engine']:.1f} | {more:.2f} |")
    print(json.dumps({"benchmark": "depth", "rows": rows, "memory_mb": memories}))


def cases(options: argparse.Namespace, scratch: Path) -> Any:
    for directory, rows in options.artifact:
        yield artifact_case(directory, rows)
    if options.artifact and not options.only:
        return
    for place, name in enumerate([*NETWORKS, RESNET]):
        if options.only and options.only not in name:
            continue
        folder = scratch / str(place)
        folder.mkdir()
        network = resnet() if name == RESNET else random_network(NETWORKS[name])
        yield random_case(name, network, folder)


if __name__ == "__main__":
    main()
