"""Bringing a network: from a file, folder or module to a certified archive and a verdict."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skipserve.artifacts.asked import Precision
from skipserve.commands import console
from skipserve.commands.output import print_json
from skipserve.commands.parameters import Json, Queries, Texts, parse_risk, positive
from skipserve.commands.progress import watching

if TYPE_CHECKING:
    from skipserve.building.bring import BringOutcome


def bring(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="An .onnx file, a Hugging Face folder, or module:function."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Rows of inputs: a .npz, .npy, .parquet, .csv or .jsonl file, or a folder that "
            "holds a folder of pictures for each class."
        ),
    ],
    fit: Annotated[
        Path | None,
        typer.Option(help="Rows the network was trained on; the exit heads are fitted on them."),
    ] = None,
    text: Texts = None,
    picture: Annotated[
        str | None, typer.Option(help="The column of pictures. Default: the only one.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", "--label", help="The column of true classes in the data."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of the model. Default: the name of the source.")
    ] = None,
    risk: Annotated[
        float,
        typer.Option(
            parser=parse_risk,
            metavar="RISK",
            help="The largest rate of disagreement with full depth, such as 1% or 0.01.",
        ),
    ] = 0.01,
    precision: Annotated[
        Precision,
        typer.Option(help="The precision of the files: fp16 for GPUs, int8 for CPUs."),
    ] = "fp32",
    task: Annotated[
        Literal["classify", "multilabel", "regress", "embed", "score"] | None,
        typer.Option(help="What an answer is. Default: what the Hugging Face folder says."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            callback=positive,
            help="For regress and score: the largest difference from full depth that agrees.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="For score: certify queries; one disagrees if another document is among its first "
            "so many.",
        ),
    ] = None,
    query: Queries = None,
    json: Json = False,
) -> None:
    """Bring a trained network: cut it, fit exit heads, certify a router and package it.

    The command writes export/NAME.toml in the working directory, builds it, and ends with a
    verdict: whether routing this network is worth it.
    """
    with watching("reading") as watch:
        from skipserve.building.bring_file import BringOptions, proposed_file

        options = BringOptions(
            *(source, data, fit, labels, name, risk, precision),
            text=tuple(text or ()),
            picture=picture,
            task=task,
            tolerance=tolerance,
            top=top,
            query=query,
        )
        proposed_file(options, Path.cwd())  # names are looked up before the import of torch
        from skipserve.building.bring import bring as bring_network

        outcome = bring_network(options, Path.cwd(), watch.say, watch.progress)
    if json:
        print_json(_values(outcome))
        return
    build = outcome.build
    console.print(f"\n{build.name}: {outcome.verdict}\n", markup=False, soft_wrap=True)
    console.print("serve it:   ", f"skipserve serve {build.name}", markup=False)
    console.print("look at it: ", f"skipserve report {build.name}", markup=False)


def _values(outcome: BringOutcome) -> dict[str, object]:
    build, worth = outcome.build, outcome.worth
    return {
        "model": build.name,
        "verdict": outcome.verdict,
        "worth": None if isinstance(worth, str) else {**asdict(worth), "pays": worth.pays},
        "build_file": build.path,
        "artifact": build.artifact,
    }
