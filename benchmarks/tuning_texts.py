"""What tuning towards exits saves on real texts: MiniLM frozen and tuned, split by split.

    python benchmarks/emails_folder.py --length 32 --out .build/emails32
    python benchmarks/tuning_texts.py .build/emails32/minilm-spam .build/emails32/emails.jsonl \\
        --fit .build/emails32/emails-fit.jsonl

For each seed two models are built as `skipserve build` does. The build file is that of `skipserve
bring`, with `[data] seed`, with one exporter to save time, and for the tuned one with `[tuning]`.
Heads and guards are fitted, and the network is tuned, on `--fit-rows` rows of the texts that it was
trained on, drawn by the seed; the other file is split by it to propose, certify and test. Both
models of a seed have the same rows. Each runs its test rows at the certified ε = 1 %; where that is
refused, it runs all blocks.

Every result is a line of `OUT/results.jsonl`; what is there is not measured again. Prints a table
and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.bring_file import BringOptions, proposed_file
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.runtime.engine import Engine

RISK, BATCH = 0.01, 32
KINDS = ("frozen", "tuned")
FEWER, HARM = 0.25, 0.002


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a Hugging Face folder with weights")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--fit", type=Path, required=True, help="texts that it was trained on")
    parser.add_argument("--column", default="body")
    parser.add_argument("--label", default="spam")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--fit-rows", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--exit-loss", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(".build/tuning-texts"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    tuning = {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "exit_loss": options.exit_loss,
    }
    found = read_results(results)
    for seed in range(options.splits):
        for kind in options.kinds:
            asked = {"seed": seed, "kind": kind, "fit_rows": options.fit_rows}
            asked |= {"tuning": tuning if kind == "tuned" else None}
            if any(asked.items() <= one.items() for one in found):
                continue
            one = asked | measure(options, asked)
            found.append(one)
            with results.open("a") as file:
                file.write(json.dumps(one) + "\n")
            print(json.dumps(one), flush=True)
    tell(read_results(results), tuning, options.fit_rows)


def read_results(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def measure(options: argparse.Namespace, asked: dict[str, Any]) -> dict[str, Any]:
    """Build one model, and run its test rows at full depth and at ε."""
    seed, began = asked["seed"], time.perf_counter()
    project = options.out / f"{asked['kind']}-{seed}-{time.time_ns()}"
    project.mkdir()
    fit = some_rows(options.fit, project / "fit.jsonl", asked["fit_rows"], seed)
    wanted = BringOptions(
        *(str(options.folder.resolve()), options.texts.resolve(), fit.resolve(), options.label),
        name=f"{asked['kind']}_{seed}",
        risk=RISK,
        text=(options.column,),
    )
    _, file, text = proposed_file(wanted, project)
    text = text.replace("[source]\n", '[source]\nexporters = ["torchscript"]\n')
    text = text.replace("[data]\n", f"[data]\nseed = {seed}\n")
    if asked["tuning"] is not None:
        lines = [f"{key} = {value}" for key, value in asked["tuning"].items()]
        text += "\n".join(["", "[tuning]", *lines, f"seed = {seed}", ""])
    file.parent.mkdir(parents=True)
    file.write_text(text)
    build = read_build_file(file)
    sourced, said = Sourced(build), []

    def say(line: str) -> None:
        said.append(line)
        print(f"{time.perf_counter() - began:5.0f} s  {line}", flush=True)

    run_steps(build, lambda epoch: None, say, sourced=sourced)
    engine = Engine.for_many(open_artifact(build.artifact), provider="cpu")
    test = sourced.rows.test
    full = engine.run_batches(test.rows, engine.off, BATCH)
    certified = engine.certified()
    found: dict[str, Any] = {
        "test_rows": len(test),
        "certify_rows": len(sourced.rows.certify),
        "certified": sorted(certified),
        "right_full": float((full.labels == test.labels).mean()),
        "tuning_said": [line for line in said if "full depth lost" in line],
    }
    for risk in (RISK, 2 * RISK):
        routed = full
        if risk in certified:
            routed = engine.run_batches(test.rows, engine.setting(risk), BATCH)
        found[f"at_{risk:g}"] = {
            "run_rate": float(routed.depth_run.mean()) / engine.manifest.depth,
            "disagree": float((routed.labels != full.labels).mean()),
            "right": float((routed.labels == test.labels).mean()),
        }
    return found | {"seconds": round(time.perf_counter() - began)}


def some_rows(file: Path, made: Path, count: int, seed: int) -> Path:
    """Write some rows of a .jsonl file, drawn by the seed."""
    lines = file.read_bytes().splitlines(keepends=True)  # of text it takes more for line ends
    taken = np.sort(np.random.default_rng(seed).permutation(len(lines))[:count])
    made.write_bytes(b"".join(lines[i] for i in taken.tolist()))
    return made


def tell(found: list[dict[str, Any]], tuning: dict[str, Any], fit_rows: int) -> None:
    """Print a row for each seed that both kinds were measured for, the means and JSON."""
    pairs = []
    for seed in sorted({one["seed"] for one in found}):
        mine = [one for one in found if (one["seed"], one["fit_rows"]) == (seed, fit_rows)]
        by_kind = {one["kind"]: one for one in mine if one["tuning"] in (None, tuning)}
        if len(by_kind) == len(KINDS):
            pairs.append([by_kind[kind] for kind in KINDS])
    at = f"at_{RISK:g}"
    print(
        "| split | blocks run, frozen | tuned | disagree, frozen | tuned | right at full depth, "
        "frozen | tuned |\n|---|---|---|---|---|---|---|"
    )

    def row(name: object, values: list[float]) -> None:
        print(f"| {name} | " + " | ".join(f"{100 * value:.1f} %" for value in values) + " |")

    table = [
        [
            *(one[at]["run_rate"] for one in pair),
            *(one[at]["disagree"] for one in pair),
            *(one["right_full"] for one in pair),
        ]
        for pair in pairs
    ]
    for pair, values in zip(pairs, table, strict=True):
        row(pair[0]["seed"], values)
    if not table:
        return
    means = np.mean(table, axis=0).tolist()
    row("mean", means)
    fewer, harm = 1 - means[1] / means[0], means[4] - means[5]
    passes = fewer >= FEWER and harm <= HARM
    print(
        f"\n{fewer:.0%} fewer blocks than frozen (wanted {FEWER:.0%}), full depth lost "
        f"{100 * harm:.2f} points (at most {100 * HARM:.1f}): {'as' if passes else 'not as'} wanted"
    )
    result = {"fewer": fewer, "harm": harm, "passes": passes, "means": means, "splits": pairs}
    print(json.dumps({"benchmark": "tuning_texts"} | result))


if __name__ == "__main__":
    main()
