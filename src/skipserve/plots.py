"""The training figure: gradient norms by layer, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skipserve.training.history import read_history


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw checkpoint directories over one another: norms by layer (log axis), loss by epoch.

    Args:
        runs: Directories that `skipserve train` left.
        out: The picture; its suffix decides the format.

    Raises:
        CheckpointError: If a directory holds no curves.
    """
    histories = [read_history(run) for run in runs]
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (norms, losses) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run, history in zip(runs, histories, strict=True):
        name = run.resolve().name
        first, last = history[0], history[-1]
        ends = list(last.gradients.values())
        (line,) = norms.plot(range(len(ends)), ends, marker="o", markersize=3, label=name)
        starts = list(first.gradients.values())
        norms.plot(range(len(starts)), starts, ":", color=line.get_color(), linewidth=1)
        losses.plot(
            [epoch.epoch for epoch in history],
            [epoch.loss for epoch in history],
            label=f"{name} ({last.accuracy:.1%} on test)",
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
