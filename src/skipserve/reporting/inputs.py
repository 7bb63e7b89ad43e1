"""The figure of inputs: the plane coloured by depth, or the easiest and hardest signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.reporting.figures import Figure, axes_for
from skipserve.reporting.sample import Sample
from skipserve.style import HEIGHT, LIGHT, WIDTH

GRID = 140
MARGIN = 0.15
SIGNALS_DRAWN = 6
SHORTEST_SIGNAL = 8
POINTS_DRAWN = 400
MARKERS = "o^sDvP"


@dataclass(frozen=True)
class Depths:
    """Depth of rows, and where it comes from.

    Attributes:
        of: The only input of rows [N, *inputs] to blocks run [N].
        sample: Of the sample's rows [N], int64.
        settled: The larger, the more settled a row's answer [N]; breaks ties of depth.
        held_back: Sent to full depth by the guard, as unfamiliar and not as hard [N], bool.
        decided_by: What ``sample`` is, in words.
        depth: Blocks of the network.
    """

    of: Callable[[NDArray[np.float32]], NDArray[np.int64]]
    sample: NDArray[np.int64]
    settled: NDArray[np.float32]
    held_back: NDArray[np.bool_]
    decided_by: str
    depth: int


def inputs_figure(sample: Sample, depths: Depths) -> Figure | str:
    """Draw the inputs by depth, or say why they cannot be drawn."""
    if len(sample.rows.tensors) > 1:
        return "Which inputs go deep is not drawn: the network takes several inputs"
    shape = sample.inputs.shape[1:]
    if shape == (2,):
        return _plane(sample, depths)
    if len(shape) == 1 and shape[0] >= SHORTEST_SIGNAL:
        if len(sample) < 2 * SIGNALS_DRAWN:
            return (
                f"The easiest and hardest inputs are not drawn: {len(sample)} rows are too few, "
                f"it takes {2 * SIGNALS_DRAWN}"
            )
        return _signals(sample, depths)
    return (
        f"Which inputs go deep is not drawn: rows of shape {list(shape)} are neither points of a "
        f"plane nor signals of {SHORTEST_SIGNAL} values or more"
    )


def _plane(sample: Sample, depths: Depths) -> Figure:
    points = sample.inputs
    low, high = points.min(axis=0), points.max(axis=0)
    spare = MARGIN * (high - low) + 1e-6
    low, high = low - spare, high + spare
    xs, ys = (np.linspace(low[i], high[i], GRID, dtype=np.float32) for i in (0, 1))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    blocks = depths.of(np.ascontiguousarray(grid)).reshape(GRID, GRID)
    made: list[Figure] = []
    caption = (
        f"The plane coloured by {depths.decided_by}, and rows of the sample on it; they go "
        "deeper where the classes meet, or where nothing like them was seen."
    )
    with axes_for(made, "inputs", "Which inputs go deep", caption) as axes:
        from matplotlib import colormaps
        from matplotlib.colors import BoundaryNorm

        edges = np.arange(-0.5, depths.depth + 1)
        colours = colormaps["viridis_r"]
        norm = BoundaryNorm(edges, colours.N)
        extent = (low[0], high[0], low[1], high[1])
        image = axes.imshow(
            blocks, origin="lower", extent=extent, cmap=colours, norm=norm, aspect="auto"
        )
        shown = points[:POINTS_DRAWN]
        classes = np.zeros(len(points)) if sample.classes is None else sample.classes
        for label in np.unique(classes):
            some, marker = (
                shown[classes[:POINTS_DRAWN] == label],
                MARKERS[int(label) % len(MARKERS)],
            )
            axes.plot(
                some[:, 0], some[:, 1], marker, ms=3.2, mfc="white", mec="black", mew=0.5,
                linestyle="none",
            )  # fmt: skip
        step = max(1, depths.depth // 10)
        bar = axes.figure.colorbar(image, ax=axes, ticks=range(0, depths.depth + 1, step))
        bar.set_label("blocks")
        axes.grid(visible=False)
    return made[0]


def _signals(sample: Sample, depths: Depths) -> Figure:
    order = np.lexsort((-depths.settled, depths.sample))
    order = order[~depths.held_back[order]]
    columns = [_varied(order, sample), _varied(order[::-1], sample)]
    made: list[Figure] = []
    caption = (
        f"Left the easiest, right the hardest of {len(sample):,} signals, by {depths.decided_by}; "
        "ties go by confidence, and each class is drawn once before any again."
    )
    if depths.held_back.any():
        caption += " Rows that the guard held back are left out."
    layout = {"nrows": SIGNALS_DRAWN, "ncols": 2, "sharex": True, "size": (WIDTH, 1.5 * HEIGHT)}
    with axes_for(made, "inputs", "Which inputs go deep", caption, **layout) as grid:
        for side, column in enumerate(columns):
            for axes, row in zip(grid[:, side], column, strict=False):
                axes.plot(sample.inputs[row], color=LIGHT[("norm", "confidence")[side]])
                blocks = depths.sample[row]
                said = f"{blocks} block{'' if blocks == 1 else 's'}"
                if sample.classes is not None:
                    said = f"class {sample.classes[row]}, {said}"
                axes.set_title(said, fontsize=8.5, pad=2)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
    return made[0]


def _varied(order: NDArray[np.int64], sample: Sample) -> list[int]:
    """The first rows of an order, of a new class as long as there is one."""
    chosen: list[int] = []
    seen: set[int] = set()
    for row in order.tolist():
        label = row if sample.classes is None else int(sample.classes[row])
        if label not in seen:
            seen.add(label)
            chosen.append(row)
        if len(chosen) == SIGNALS_DRAWN:
            return chosen
    rest = [row for row in order.tolist() if row not in chosen]
    return [*chosen, *rest[: SIGNALS_DRAWN - len(chosen)]]
