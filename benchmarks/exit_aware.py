"""What exit-aware training costs at full depth: the same network with and without it.

`python benchmarks/exit_aware.py [--seeds 2]`: the network of export/mnist1d_resnet.toml, trained
with its exit loss and layer dropout and with neither, all else equal; accuracy at full depth, and
of the head read after each block, on 20,000 test rows. Trains for about five minutes a network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from skipserve.building.buildfile import read_build_file
from skipserve.networks import ResidualNetwork
from skipserve.reporting.readings import read_network
from skipserve.training.loop import fit
from skipserve.training.recipes import Samples

BUILD = Path(__file__).parent.parent / "export" / "mnist1d_resnet.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    build = read_build_file(BUILD)
    trained = build.trained
    test = trained.recipe.draw("test")
    kinds = {
        "exit-aware": trained.training,
        "plain": trained.training.model_copy(update={"exit_loss": 0.0, "layer_dropout": 0.0}),
    }
    rows = []
    print("| training | seed | full depth | after 1, 2, 3, 4, 6 blocks |\n|---|---|---|---|")
    for seed in range(options.seeds):
        for kind, training in kinds.items():
            seeded = training.model_copy(update={"seed": seed})
            network, _ = fit(trained.network, trained.recipe, seeded)
            by_depth = accuracies(network, test)
            rows.append({"training": kind, "seed": seed, "accuracy_by_depth": by_depth})
            early = ", ".join(f"{by_depth[d]:.1%}" for d in (1, 2, 3, 4, 6))
            print(f"| {kind} | {seed} | {by_depth[-1]:.2%} | {early} |", flush=True)
    full = {
        kind: [row["accuracy_by_depth"][-1] for row in rows if row["training"] == kind]
        for kind in kinds
    }
    differences = [100 * (a - b) for a, b in zip(full["exit-aware"], full["plain"], strict=True)]
    mean = sum(differences) / len(differences)
    print(f"\nexit-aware minus plain, points: {mean:+.2f} ({len(differences)} seeds)")
    print(json.dumps({"rows": rows, "difference_points": differences}))


def accuracies(network: ResidualNetwork, test: Samples) -> list[float]:
    answers = read_network(network, test.inputs.numpy()).answers.argmax(axis=2)
    right: list[float] = (answers == test.labels.numpy()[:, None]).mean(axis=0).tolist()
    return right


if __name__ == "__main__":
    main()
