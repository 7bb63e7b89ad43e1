"""Are the weights that ship what their build files train? Trains them again and compares.

The same machine gives the same weights; another one sums in another order, and small differences
grow over thousands of steps. So accuracies and final losses are compared, not weights. Prints a
table and one JSON line; ends with 1 if one is off. `--write` keeps the new weights in export/.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.building.products import train
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.history import read_history
from skipserve.training.loop import accuracy
from skipserve.training.shipped import read_shipped, ship, take

ROOT = Path(__file__).parent.parent
MODELS = ("moons_plain", "moons_residual", "moons_gated", "mnist1d_resnet")
# Accuracy on the test split, absolute; loss of the last epoch, relative.
ACCURACY, LOSS = 0.01, 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, action="append", help="all by default")
    parser.add_argument("--write", action="store_true", help="keep what was trained in export/")
    options = parser.parse_args()
    print("| model | trains in | accuracy, shipped | again | loss, shipped | again | as shipped |")
    print("|---|---|---|---|---|---|---|")
    found = []
    for name in options.model or MODELS:
        row = trained_again(read_build_file(ROOT / "export" / f"{name}.toml"), options.write)
        found.append(row)
        print(
            "| {model} | {seconds:.0f} s | {shipped_accuracy} | {accuracy:.4f} | {shipped_loss} "
            "| {loss:.4f} | {holds} |".format(**row),
            flush=True,
        )
    print(json.dumps({"benchmark": "train_shipped", "models": found}))
    sys.exit(0 if options.write or all(row["holds"] for row in found) else 1)


def trained_again(build: BuildFile, write: bool) -> dict[str, Any]:
    trained = build.trained
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / build.name
        start = perf_counter()
        train(build, checkpoint, lambda epoch: None)
        row: dict[str, Any] = {"model": build.name, "seconds": perf_counter() - start}
        test = trained.recipe.draw("test")
        row["accuracy"] = accuracy(load_checkpoint(checkpoint).network, test)
        row["loss"] = read_history(checkpoint)[-1].loss
        if write:
            ship(build.shipped, checkpoint, trained.recipe)
    if read_shipped(build.shipped) is None:
        return {**row, "shipped_accuracy": None, "shipped_loss": None, "holds": False}
    # What was read is what serves: hash, making and answers are checked here.
    taken = take(build.shipped, trained.recipe, trained.network, trained.training)
    assert taken is not None
    network, history = taken
    row["shipped_accuracy"], row["shipped_loss"] = accuracy(network, test), history[-1].loss
    row["holds"] = (
        abs(row["accuracy"] - row["shipped_accuracy"]) <= ACCURACY
        and abs(row["loss"] / row["shipped_loss"] - 1) <= LOSS
    )
    return row


if __name__ == "__main__":
    main()
