"""Sentence embeddings that leave early: what is certified, and what a search finds with them.

    python benchmarks/embeddings.py all-MiniLM-L6-v2 emails.jsonl --fit emails-fit.jsonl

brings a folder of sentence-transformers with the task `embed` (disagreement: the cosine to the
full-depth vector is below 0.99) and asks for ε = 1 %. Then every test text is a document and a
query: recall@10 is the share of the ten nearest documents by full-depth vectors (the text itself
left out) that are among the ten nearest by routed ones, with an index of full-depth vectors and
routed queries, and with everything routed. Wanted: 0.98. Every candidate is shown, certified or
not, so that a refusal says what it would have been.

As long as `skipserve bring` takes, and a minute. Prints the verdict, a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting

RISK, NEAREST, BATCH = 0.01, 10, 32
NAME = "embedder"
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of sentence-transformers")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--fit", type=Path)
    parser.add_argument("--column", default="body")
    parser.add_argument("--out", type=Path, default=Path(".build/embeddings"))
    options = parser.parse_args()
    fit = options.fit and options.fit.resolve()
    wanted = BringOptions(
        *(str(options.folder.resolve()), options.texts.resolve(), fit),
        name=NAME,
        risk=RISK,
        text=(options.column,),
    )
    outcome = bring(wanted, options.out, lambda line: print(line, flush=True))
    print(f"\n{outcome.verdict}\n")
    rows = Sourced(read_build_file(options.out / "export" / f"{NAME}.toml")).rows.test.rows
    engine = Engine.for_many(open_artifact(options.out / "artifacts" / NAME), provider="cpu")
    certified = {one.candidate: risk for risk, one in engine.certified().items()}
    full = engine.run_batches(rows, engine.off, BATCH).answers
    found = []
    print(f"{len(rows)} test texts, recall@{NEAREST}\n")
    print("| candidate | certified ε | blocks run | cosine < 0.99 | stored index | all routed |")
    print("|---|---|---|---|---|---|")
    for place, thresholds in enumerate(engine.candidates):
        setting = Setting(thresholds, engine.guard_limit)
        routed = engine.run_batches(rows, setting, BATCH)
        row = {
            "candidate": place,
            "certified": certified.get(place),
            "run_rate": float(routed.depth_run.mean() / engine.manifest.depth),
            "apart": float((~engine.manifest.task.agree(routed.answers, full)).mean()),
            "stored": recall(full, routed.answers, full),
            "routed": recall(full, routed.answers, routed.answers),
        }
        found.append(row)
        print(
            "| {candidate} | {certified} | {run_rate:.1%} | {apart:.2%} | {stored:.3f} "
            "| {routed:.3f} |".format(**row),
            flush=True,
        )
    print(json.dumps({"benchmark": "embeddings", "verdict": outcome.verdict, "rows": found}))


def recall(full: Vectors, queries: Vectors, index: Vectors) -> float:
    """Share of the nearest by full-depth vectors that are nearest in an index, too."""
    expected, got = nearest(full, full), nearest(queries, index)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(expected, got, strict=True)]
    return float(np.mean(shared) / NEAREST)


def nearest(queries: Vectors, index: Vectors) -> NDArray[np.int64]:
    """The nearest other rows of an index by cosine [N, NEAREST]."""
    likeness = unit(queries) @ unit(index).T
    np.fill_diagonal(likeness, -np.inf)
    found: NDArray[np.int64] = np.argpartition(-likeness, NEAREST, axis=1)[:, :NEAREST]
    return found


def unit(vectors: Vectors) -> Vectors:
    made: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


if __name__ == "__main__":
    main()
