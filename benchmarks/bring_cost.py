"""What bringing a network costs: time and memory, phase by phase.

    python benchmarks/bring_cost.py [--rows 20000] [--out .build/bring_cost]
    python benchmarks/bring_cost.py --source .build/emails/minilm.onnx \\
        --data .build/emails/emails.npz --fit .build/emails/emails-fit.npz --labels label

Without a source: an encoder of six layers, 19 MB, of random weights with a linear head fitted to
MNIST-1D, and rows of that. Bringing runs in a project of its own, made anew. Wanted: at most ten
minutes on two quiet cores, and 3 × the model + 2 GB of memory.

The most memory of a phase is that of the kernel (VmHWM, set back at each). Prints a table, the
verdict, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions

RECIPE = "mnist1d"
ENCODER = {"family": "encoder", "width": 256, "heads": 4, "patch": 5, "inputs": [40], "depth": 6}
GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fit", type=Path)
    parser.add_argument("--labels")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rows", type=int, default=20_000, help="of what is made here")
    parser.add_argument("--out", type=Path, default=Path(".build/bring_cost"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source, data = options.source, options.data
    if source is None:
        source, data = made(options.out, options.rows)
        options.labels = "label"
    project = options.out / "project"
    shutil.rmtree(project, ignore_errors=True)
    (project / "export").mkdir(parents=True)
    phases = Phases()
    wanted = BringOptions(
        str(Path(source).resolve()) if ".onnx" in source else source,
        data.resolve(),
        options.fit and options.fit.resolve(),
        options.labels,
        "brought",
        precision=options.precision,
    )
    outcome = bring(wanted, project, phases.say, lambda text, share: phases.begin(text))
    phases.end()
    print("\n| phase | seconds | most memory, GB |\n|---|---|---|")
    for name, seconds, peak in phases.found:
        print(f"| {name} | {seconds:.0f} | {peak:.2f} |")
    seconds, peak = sum(one[1] for one in phases.found), max(one[2] for one in phases.found)
    size = Path(source).stat().st_size / GB if Path(source).is_file() else float("nan")
    print(
        f"\nin all {seconds:.0f} s; {peak:.2f} GB of memory, beside 3 × {size:.3f} + 2 = "
        f"{3 * size + 2:.2f}\n\n{outcome.verdict}"
    )
    print(json.dumps({"benchmark": "bring_cost", "phases": phases.found, "size_gb": size}))


class Phases:
    """Time and memory between what is said."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, float]] = []
        self._name, self._began = "reading", perf_counter()
        _forget_peak()

    def say(self, line: str) -> None:
        """Lines that differ in their numbers alone are of one phase."""
        self.begin(re.sub(r"[\d.,]+%?", "…", line))

    def begin(self, name: str) -> None:
        if name == self._name:
            return
        self.end()
        self._name = name

    def end(self) -> None:
        now = perf_counter()
        seconds, peak = now - self._began, _peak() / GB
        print(f"{self._name}: {seconds:.0f} s, {peak:.2f} GB", file=sys.stderr, flush=True)
        self.found.append((self._name, seconds, peak))
        self._began = now
        _forget_peak()


def _peak() -> float:
    """Most resident memory since it was last forgotten, in bytes; Linux alone tells."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * float(line)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def made(out: Path, count: int) -> tuple[str, Path]:
    """A network that answers sensibly without having been trained, and rows for it."""
    import onnx
    import torch
    from sklearn.linear_model import LogisticRegression

    from skipserve.artifacts.torch_files import export_module
    from skipserve.networks import build_network, parse_network
    from skipserve.training.recipes import open_recipe

    torch.manual_seed(0)
    recipe = open_recipe(RECIPE)
    drawn = recipe.draw("test")
    inputs, labels = drawn.inputs[:count], drawn.labels[:count]
    network = build_network(parse_network({**ENCODER, "classes": 10})).eval()
    network.scaling.fit(inputs[:1_000])
    with torch.no_grad():
        last = network.head[-1] if isinstance(network.head, torch.nn.Sequential) else network.head
        seen: list[torch.Tensor] = []
        hook = last.register_forward_hook(lambda module, args, _: seen.append(args[0]))
        for part in inputs[:4_000].split(500):
            network(part)
        hook.remove()
        features = torch.cat(seen).numpy()
        fitted = LogisticRegression(max_iter=300).fit(features, labels[:4_000].numpy())
        last.weight.copy_(torch.from_numpy(fitted.coef_).float())
        last.bias.copy_(torch.from_numpy(fitted.intercept_).float())
    model = export_module(network, (torch.zeros(2, 40),), ("signal",), "logits")
    file, data = out / "encoder.onnx", out / "rows.npz"
    onnx.save(model, file)
    np.savez(data, signal=inputs.numpy(), label=labels.numpy())
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {len(inputs):,} rows", flush=True)
    return str(file), data


if __name__ == "__main__":
    main()
