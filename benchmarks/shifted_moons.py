"""Off the manifold: the gated network against the residual ones on two moons moved away.

Fresh moons are translated in eight directions, labels kept. Prints accuracy, confidence, loss and
gradient norms by distance, means ± 95 % intervals over training seeds, and one JSON line; writes
shifted-moons.png and the measured part of shifted-moons.md, whose text above the mark it keeps.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import t as student_t
from sklearn.datasets import make_moons
from torch import Tensor, nn

from skipserve.building.buildfile import read_build_file
from skipserve.cores import usable_cores
from skipserve.networks import ResidualNetwork
from skipserve.training.gradients import GradientNorms
from skipserve.training.loop import fit
from skipserve.training.recipes import Samples, TwoMoons

ROOT = Path(__file__).parent.parent
VARIANTS = {  # build file, and what differs from its [network]
    "residual": ("moons_residual", {}),
    "residual, pre-norm": ("moons_residual", {"norm": "pre"}),
    "gated": ("moons_gated", {}),
}
DISTANCES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)  # raw units: a moon's radius is 1
ANGLES = [2 * math.pi * step / 8 for step in range(8)]
MEASURES = ("accuracy", "confidence", "loss", "stem_grad_norm", "median_grad_norm", "gate_opening")
MARK = "<!-- Below is written by benchmarks/shifted_moons.py; above is written by hand. -->"

Results = dict[str, NDArray[np.float64]]  # variant → [seeds, distances, measures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="training runs a variant, 2 or more")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of page and figure")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds} leaves no interval; give 2 or more")
    results = measure(options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    plot(results, options.out / "shifted-moons.png")
    write_page(options.out / "shifted-moons.md", options.seeds, table(results))
    print(table(results))
    print(json.dumps({"benchmark": "shifted_moons", "seeds": options.seeds, "rows": rows(results)}))


def measure(seeds: int) -> Results:
    moons = fresh_moons()
    runs = [(variant, seed) for seed in range(seeds) for variant in VARIANTS]
    found: dict[str, list[list[list[float]]]] = {variant: [] for variant in VARIANTS}
    for variant, seed in track(runs, "training and measuring", console=Console(stderr=True)):
        network = train(variant, seed)
        found[variant].append([at_distance(network, moons, distance) for distance in DISTANCES])
    return {variant: np.array(values) for variant, values in found.items()}


def fresh_moons() -> Samples:
    # The recipe's own draws take its seed and the two after it.
    points, labels = make_moons(2_000, noise=TwoMoons.noise, random_state=TwoMoons.seed + 3)
    return Samples(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels))


def train(variant: str, seed: int) -> ResidualNetwork:
    name, changes = VARIANTS[variant]
    build = read_build_file(ROOT / "export" / f"{name}.toml", {"seed": seed})
    trained = build.trained
    network, _ = fit(trained.network.model_copy(update=changes), trained.recipe, trained.training)
    return network


def at_distance(network: ResidualNetwork, moons: Samples, distance: float) -> list[float]:
    """The measures, in order, averaged over the directions."""
    shifts = [torch.tensor([math.cos(a), math.sin(a)]) * distance for a in ANGLES]
    found = [measures(network, moons.inputs + shift, moons.labels) for shift in shifts]
    return np.mean(found, axis=0).tolist()


def measures(network: ResidualNetwork, inputs: Tensor, labels: Tensor) -> list[float]:
    network.zero_grad()
    logits = network(inputs)  # (B, 2)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    gradients = GradientNorms(network)
    gradients.add()
    norms = gradients.means()  # of this one step
    with torch.no_grad():
        return [
            (logits.argmax(1) == labels).double().mean().item(),
            logits.softmax(1).amax(1).mean().item(),
            loss.item(),
            next(norm for layer, norm in norms.items() if layer.startswith("stem")),
            # Of the blocks' f alone, so that the same layers are compared.
            median(norm for layer, norm in norms.items() if ".inner." in layer),
            gate_opening(network, inputs),
        ]


def gate_opening(network: ResidualNetwork, inputs: Tensor) -> float:
    """Mean over rows, units and blocks; not a number where there are no gates."""
    streams = zip(network.blocks, network.streams(inputs), strict=False)  # one stream is left over
    gates = [block.gate(x).sigmoid().mean() for block, x in streams if block.gate is not None]
    return torch.stack(gates).mean().item() if gates else math.nan


def interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis, and the half width of its 95 % interval (Student's t)."""
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return values.mean(axis=0), student_t.ppf(0.975, len(values) - 1) * error


def rows(results: Results) -> list[dict[str, Any]]:
    found = []
    for index, distance in enumerate(DISTANCES):
        for variant, values in results.items():
            row: dict[str, Any] = {"distance": distance, "network": variant}
            for name, mean, half in zip(MEASURES, *interval(values[:, index]), strict=True):
                if not math.isnan(mean):
                    row |= {name: float(f"{mean:.6g}"), f"{name}_ci95": float(f"{half:.4g}")}
            found.append(row)
    return found


def table(results: Results) -> str:
    header = ["distance", "network", *(name.replace("_", " ") for name in MEASURES)]
    lines = [header, ["---"] * len(header)]
    for row in rows(results):
        cells = [cell(row, name) for name in MEASURES]
        lines.append([f"{row['distance']:g}", row["network"], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    mean, half = row[name], row[f"{name}_ci95"]
    if name in ("accuracy", "confidence"):
        return f"{mean:.1%} ± {half:.1%}"
    places = 4 if mean < 0.1 else 3 if mean < 1 else 2
    return f"{mean:.{places}f} ± {half:.{places}f}"


def plot(results: Results, out: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (accuracy, norms) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for color, (variant, values) in enumerate(results.items()):
        curves = {"accuracy": accuracy, "stem_grad_norm": norms, "median_grad_norm": norms}
        for name, axes in curves.items():
            mean, half = interval(values[:, :, MEASURES.index(name)])
            look = f"C{color}--" if name == "median_grad_norm" else f"C{color}o-"
            label = None if name == "median_grad_norm" else variant
            axes.plot(DISTANCES, mean, look, markersize=3, label=label)
            axes.fill_between(DISTANCES, mean - half, mean + half, color=f"C{color}", alpha=0.2)
    accuracy.axhline(0.5, color="gray", linestyle=":", linewidth=1)
    accuracy.set(ylabel="accuracy", title="accuracy (dotted: chance)")
    norms.set(yscale="log", ylabel="gradient norm", title="solid: stem, dashed: median of blocks")
    for axes, corner in ((accuracy, "upper right"), (norms, "lower right")):
        axes.set(xlabel="distance moved, raw units")
        axes.grid(alpha=0.3)
        axes.legend(loc=corner)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def write_page(page: Path, seeds: int, measured: str) -> None:
    by_hand = page.read_text().partition(MARK)[0] if page.exists() else "# Shifted moons\n\n"
    page.write_text(
        f"{by_hand}{MARK}\n\n"
        "![Accuracy and gradient norms by distance](shifted-moons.png)\n\n"
        f"Means ± 95 % intervals over {seeds} training seeds, of {len(ANGLES)} directions each.\n\n"
        f"{measured}\n\n"
        f"Command: `python benchmarks/shifted_moons.py --seeds {seeds}`. Hardware: {hardware()}.\n"
    )


def hardware() -> str:
    lines = subprocess.check_output(["lscpu"], text=True).splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if "Model name" in line)
    return f"{usable_cores()} cores of {model}, one thread used; PyTorch {torch.__version__}"


if __name__ == "__main__":
    main()
