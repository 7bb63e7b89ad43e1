"""Capacity on paper: what docs/scaling.md says, from what was measured and what is assumed.

    python benchmarks/scaling.py                            # prints the tables
    python benchmarks/scaling.py --assume vcpu_hour=0.05    # with an assumption of your own
    python benchmarks/scaling.py --write                    # into docs/scaling.md

Measured requests/s come from docs/peers.json, networks and assumptions from scaling.toml.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scaling_model import HOST, PRECISIONS, ROUTED, Network, Paper

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/scaling.md"
MARK = "<!-- Below is written by benchmarks/scaling.py; above is written by hand. -->"
RATES = (1_000, 10_000, 100_000)
BATCHES = (1, 32)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def digits(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.3g}"


def cost_table(paper: Paper) -> str:
    """vCPUs against a T4, each with the batch and the precision that cost least there."""
    lines = []
    for name, network in paper.networks.items():
        cpu = [paper.cpu_cost(paper.request_core_s(name, router)) for router in ("off", "on")]
        choices = [
            [paper.gpu_cost(paper.gpu_rate(batch_s, rows)) for batch_s in ways_s]
            for precision in PRECISIONS
            for rows in BATCHES
            for ways_s in [paper.ways_s(network, rows, precision)]
        ]
        costs = [*cpu, *map(min, zip(*choices, strict=True))]
        lines.append([network.title, *(f"{cost:.3f}" for cost in costs)])
    head = ["network", "vCPUs, full depth", "vCPUs, router", "a T4, full depth", "a T4, router"]
    return table([*head, "a T4, deep rows gathered"], lines)


def cpu_table(paper: Paper) -> str:
    asked = [(HOST, "none")]
    asked += [(name, router) for name in paper.networks for router in ("off", "on")]
    lines = []
    for name, router in asked:
        core_s = paper.request_core_s(name, router)
        counts = (f"{paper.replicas(rate, core_s):,}" for rate in RATES)
        title = paper.networks[name].title if name in paper.networks else f"`{name}`"
        given = digits(paper.assumed["use"] / core_s)
        spent = [f"{1e6 * core_s:,.0f}", given, *counts, f"{paper.cpu_cost(core_s):.3f}"]
        lines.append([title, router, paper.basis(name), *spent])
    head = ["network", "router", "rests on", "µs of a core a request", "requests/s a replica"]
    return table([*head, *(f"replicas for {rate:,}/s" for rate in RATES), "USD a million"], lines)


def work_table(paper: Paper) -> str:
    head = ["network", "blocks", "MFLOP a row", "of it in blocks", "weights", "kernels"]
    return table(
        [*head, "FLOP a byte, FP16, 1 row / 32", "blocks run at ε = 1 %", "from"],
        (
            [
                one.title,
                str(one.blocks),
                digits(one.flops / 1e6),
                f"{one.block_flops / one.flops:.1%}",
                f"{one.weights / 1e6:.2f} M",
                str(one.kernels),
                " / ".join(digits(one.intensity(rows, "fp16")) for rows in BATCHES),
                f"{one.run_rate:.1%}",
                one.source,
            ]
            for one in paper.networks.values()
        ),
    )


def gpu_table(paper: Paper) -> str:
    lines = []
    for network in paper.networks.values():
        for precision in PRECISIONS:
            for rows in BATCHES:
                full_s, bound = paper.gpu_s(network, rows, precision)
                spent = paper.ways_s(network, rows, precision)
                rates = [paper.gpu_rate(batch_s, rows) for batch_s in spent]
                lines.append(
                    [network.title, precision.upper(), str(rows)]
                    + [f"{1e3 * full_s:.2f}, {bound}"]
                    + [f"{batch_s / full_s:.2f}" for batch_s in spent[1:]]
                    + [" / ".join(map(digits, rates))]
                    + [" / ".join(f"{paper.gpu_cost(rate):.3f}" for rate in rates)]
                )
    head = ["network", "precision", "batch", "full depth: ms, bound by", "router, over it"]
    ways = ["requests/s: full / router / gathered", "USD a million, the same"]
    return table([*head, "deep rows gathered, over it", *ways], lines)


def page(paper: Paper, reasons: Mapping[str, str]) -> str:
    """The computed part of docs/scaling.md."""
    routed = paper.networks[ROUTED]
    computed = 1 / paper.computed_s(routed, "on")
    measured = 1 / paper.measured_s(ROUTED, "on")
    assumed = table(
        ["assumption", "value", "why"],
        ([f"`{name}`", f"{paper.assumed[name]:,g}", why] for name, why in reasons.items()),
    )
    bound = digits(paper.assumed["t4_vcpus"] / paper.request_s)
    ridges = " / ".join(digits(paper.ridge(precision)) for precision in PRECISIONS)
    return f"""\
## USD for a million requests

{cost_table(paper)}
## Replicas of one vCPU

{cpu_table(paper)}
*Computed* means: the service takes {1e6 * paper.request_s:.0f} µs of a core for each request
(`{HOST}`), and the network reaches {paper.core_flops / 1e9:.1f} GFLOP/s a core
(`{ROUTED}` at full depth, less the service). With the router, the network's time is
multiplied by the ratio that a batch of 8 took over the plain graph. For `{ROUTED}` with
the router this gives {digits(computed)} requests/s a core; {digits(measured)} were measured.

## What a row costs

{work_table(paper)}
## One T4

{gpu_table(paper)}
A T4's ridge is at {ridges} FLOP a byte (FP32 / FP16). Its machine's {paper.assumed["t4_vcpus"]:g}
vCPUs take at most {bound} requests/s, whatever the T4 does.

## Assumptions

{assumed}"""


def read(changes: Mapping[str, float]) -> tuple[Paper, dict[str, str]]:
    """Everything that is in the files, and why each assumption is made.

    Raises:
        SystemExit: If an assumption is changed that there is not.
    """
    told = tomllib.loads((ROOT / "benchmarks/scaling.toml").read_text())
    if unknown := sorted(changes.keys() - told["assumptions"].keys()):
        known = ", ".join(told["assumptions"])
        sys.exit(f"there is no assumption {', '.join(unknown)}; there are {known}")
    assumed = {name: one["value"] for name, one in told["assumptions"].items()} | dict(changes)
    networks = {name: Network(**one) for name, one in told["networks"].items()}
    groups = json.loads((ROOT / "docs/peers.json").read_text())["groups"]
    paper = Paper(assumed, networks, [run for runs in groups.values() for run in runs])
    return paper, {name: one["why"] for name, one in told["assumptions"].items()}


def assumption(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--assume", action="append", type=assumption, default=[], metavar="NAME=NUMBER"
    )
    parser.add_argument("--write", action="store_true", help="into docs/scaling.md")
    asked = parser.parse_args()
    if asked.write and asked.assume:
        parser.error("docs/scaling.md holds what scaling.toml says; change it there")
    text = page(*read(dict(asked.assume)))
    if asked.write:
        by_hand = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(f"{by_hand}{MARK}\n\n{text}")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
