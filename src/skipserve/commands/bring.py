"""Bringing a network: from a file, folder or module to a certified archive and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipserve.commands import console
from skipserve.commands.progress import watching
from skipserve.commands.risk import parse_risk


def bring(
    source: Annotated[
        str, typer.Argument(help="An .onnx file, a Hugging Face folder, or module:function.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Rows: .npz, .npy, .parquet, .csv, .jsonl, or a folder of class folders of "
            "pictures."
        ),
    ],
    fit: Annotated[
        Path | None, typer.Option(help="Rows the network was trained on; heads are fitted on them.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of texts; twice for pairs. Default: the only one."),
    ] = None,
    picture: Annotated[
        str | None, typer.Option(help="Column of pictures. Default: the only one.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", "--label", help="Column of true classes in the data."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; default: the source's.")] = None,
    risk: Annotated[
        float, typer.Option(parser=parse_risk, metavar="RISK", help="ε, such as 1% or 0.01.")
    ] = 0.01,
    precision: Annotated[str, typer.Option(help="fp32, or int8 for CPUs.")] = "fp32",
    task: Annotated[
        str | None,
        typer.Option(
            help="classify, multilabel, regress, embed or score. Default: what the folder says."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Of regress and score: largest difference from full depth that agrees."),
    ] = None,
) -> None:
    """Bring a trained network: cut it, fit exits, certify, package; ends with a verdict.

    Writes export/NAME.toml in the working directory and walks it. Example:

    skipserve bring fashion.onnx --data fashion.npz --labels label

    skipserve bring FOLDER --data emails.jsonl --text body --label spam
    """
    with watching("reading") as watch:
        from skipserve.building.bring import BringOptions
        from skipserve.building.bring import bring as bring_network

        texts = tuple(text or ())
        options = BringOptions(
            *(source, data, fit, labels, name, risk, precision),
            text=texts,
            picture=picture,
            task=task,
            tolerance=tolerance,
        )
        outcome = bring_network(options, Path.cwd(), watch.say, watch.progress)
    build = outcome.build
    console.print(f"\n{build.name}: {outcome.verdict}\n", markup=False, soft_wrap=True)
    console.print("serve it:   ", f"skipserve serve {build.name}", markup=False)
    console.print("look at it: ", f"skipserve report {build.name}", markup=False)
