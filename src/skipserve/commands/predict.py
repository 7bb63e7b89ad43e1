"""Answering a file: offline scoring in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipserve.commands import console
from skipserve.commands.progress import watching
from skipserve.commands.risk import parse_risk


def predict(
    model: Annotated[str, typer.Argument(help="A name in artifacts/, or an artifact directory.")],
    rows: Annotated[Path, typer.Argument(help="Rows: .npz, .npy, .parquet, .csv or .jsonl.")],
    out: Annotated[Path, typer.Option(help="Answers: .parquet, .csv, .jsonl or .npz.")],
    risk: Annotated[
        float | None,
        typer.Option(parser=parse_risk, metavar="RISK", help="ε; default: full depth."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of texts; twice for pairs. Default: the only one."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that run together.")] = 64,
    threads: Annotated[int, typer.Option(min=0, help="Cores to use; 0 is all.")] = 0,
) -> None:
    """Answer a file of rows, each as deep as it needs.

    Example: skipserve predict fashion rows.parquet --out answers.parquet --risk 1%
    """
    with watching(f"{model}: reading {rows}") as watch:
        from skipserve.artifacts.artifact import find_artifact
        from skipserve.building.answers import check_writable, write_answers
        from skipserve.building.scoring import score

        check_writable(out)
        artifact = find_artifact(model)
        texts = tuple(text or ())
        scored = score(artifact, rows, risk, batch_size, threads, watch.progress, texts)
        write_answers(out, scored)
    console.print(
        f"{len(scored.prediction):,} rows to {out}; {scored.summary}",
        markup=False,
        soft_wrap=True,
    )
