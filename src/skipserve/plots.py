"""The figure of the experiment: gradient norm by layer, and the loss beside it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from skipserve.errors import CheckpointError


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw checkpoint directories over one another: norms by layer (log axis), loss by epoch.

    Args:
        runs: Directories that `skipserve train` left.
        out: The picture; its suffix decides the format.

    Raises:
        CheckpointError: If a directory holds no curves.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (norms, losses) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run in runs:
        epochs, layers = _read(run / "epochs.csv"), _read(run / "gradients.csv")
        last = epochs[-1]["epoch"]
        name = run.resolve().name
        ends = [float(row["grad_norm"]) for row in layers if row["epoch"] == last]
        (line,) = norms.plot(range(len(ends)), ends, marker="o", markersize=3, label=name)
        starts = [float(row["grad_norm"]) for row in layers if row["epoch"] == "1"]
        norms.plot(range(len(starts)), starts, ":", color=line.get_color(), linewidth=1)
        losses.plot(
            [int(row["epoch"]) for row in epochs],
            [float(row["loss"]) for row in epochs],
            label=f"{name} ({float(epochs[-1]['accuracy']):.1%} on test)",
        )
    norms.set(
        yscale="log",
        xlabel="layer, stem to head",
        ylabel="gradient norm of the weight",
        title="solid: last epoch, dotted: first",
    )
    losses.set(xlabel="epoch", ylabel="training loss", ylim=(0, None), title="loss")
    for axes in (norms, losses):
        axes.grid(alpha=0.3)
        axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _read(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
    except FileNotFoundError:
        rows = []
    if not rows:
        raise CheckpointError(f"{file} holds no curve; make one with `skipserve train`")
    return rows
