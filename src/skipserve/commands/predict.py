"""Answering a file: offline scoring in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipserve.commands import console
from skipserve.commands.output import print_json
from skipserve.commands.parameters import (
    ROWS,
    BatchSize,
    Built,
    Json,
    Texts,
    Threads,
    parse_risk,
)
from skipserve.commands.progress import watching


def predict(
    model: Built,
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help=f"Rows of inputs: {ROWS}.")],
    out: Annotated[Path, typer.Option(help="The file of answers: .parquet, .csv, .jsonl or .npz.")],
    risk: Annotated[
        float | None,
        typer.Option(
            parser=parse_risk,
            metavar="RISK",
            help="A certified risk, such as 1%; without it every row runs to full depth.",
        ),
    ] = None,
    text: Texts = None,
    batch_size: BatchSize = 64,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Answer a file of rows without a service; with --risk, each row only as deep as it needs."""
    with watching(f"{model}: reading {rows}") as watch:
        from skipserve.artifacts.artifact import find_artifact
        from skipserve.building.answers import check_writable, write_answers
        from skipserve.building.scoring import score
        from skipserve.sources.columns import require_rows

        check_writable(out)
        require_rows(rows)
        artifact = find_artifact(model)
        texts = tuple(text or ())
        scored = score(artifact, rows, risk, batch_size, threads, watch.progress, texts)
        write_answers(out, scored)
    answers = scored.prediction
    if json:
        print_json(
            {
                "model": artifact.manifest.name,
                "rows": len(answers),
                "unanswered": int((~answers.finite).sum()),
                "run_rate": float(answers.depth_run.mean()) / artifact.manifest.depth,
                "risk": scored.risk,
                "out": out,
            }
        )
        return
    console.print(
        f"{len(answers):,} rows to {out}; {scored.summary}",
        markup=False,
        soft_wrap=True,
    )
