"""What a request costs on paper: on cores as measured, on a T4 by its roofline."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# Bytes of a number.
PRECISIONS = {"fp32": 4, "fp16": 2}
# The model whose requests are next to nothing but service, and the one measured with a router.
HOST, ROUTED = "moons_residual", "mnist1d_resnet"


@dataclass(frozen=True)
class Network:
    """A network as scaling.toml has it; its keys are explained there."""

    title: str
    blocks: int
    block_flops: int
    outside_flops: int
    weights: int
    activations: int
    kernels: int
    run_rate: float
    routed: float
    stages: float
    source: str

    @property
    def flops(self) -> int:
        """Of one row at full depth."""
        return self.block_flops + self.outside_flops

    def intensity(self, rows: int, precision: str) -> float:
        """FLOPs for each byte that a batch moves: weights once, activations of every row."""
        moved = PRECISIONS[precision] * (self.weights + rows * self.activations)
        return rows * self.flops / moved


class Paper:
    """Measured figures and assumptions, and what follows from them.

    Args:
        assumed: Values by name.
        networks: By name.
        runs: All of docs/peers.json.
    """

    def __init__(
        self,
        assumed: Mapping[str, float],
        networks: Mapping[str, Network],
        runs: Sequence[Mapping[str, Any]],
    ) -> None:
        self.assumed, self.networks, self.runs = assumed, networks, runs
        # Seconds of a core that a request takes before its network does anything worth counting.
        self.request_s = self.measured_s(HOST, "off")
        network_s = self.measured_s(ROUTED, "off") - self.request_s
        self.core_flops = networks[ROUTED].flops / network_s

    def measured(self, model: str, router: str) -> float:
        """Our requests/s at the connections assumed, the median of all rounds."""
        wanted = (model, "skipserve", router, self.assumed["connections"])
        rates = [
            run["requests_per_s"]
            for run in self.runs
            if (run["model"], run["name"], run["router"], run["connections"]) == wanted
        ]
        if not rates:
            sys.exit(
                f"docs/peers.json has no run of {model} behind skipserve with the router {router} "
                f"and {self.assumed['connections']:g} connections"
            )
        return float(median(rates))

    def measured_s(self, model: str, router: str) -> float:
        """Seconds of a core for a request, as measured."""
        return self.assumed["measured_cores"] / self.measured(model, router)

    def computed_s(self, network: Network, router: str) -> float:
        """Seconds of a core for a request of a network that was not measured behind the service."""
        full_s = network.flops / self.core_flops
        shares = network.routed + self.assumed["evidence"] if router == "on" else 1.0
        return self.request_s + full_s * shares

    def request_core_s(self, name: str, router: str) -> float:
        """Seconds of a core for a request, measured where it was; without one, router "none"."""
        if name in (HOST, ROUTED):
            return self.measured_s(name, "off" if router == "none" else router)
        return self.computed_s(self.networks[name], router)

    def basis(self, name: str) -> str:
        """What the figures of a network rest on."""
        if name in (HOST, ROUTED):
            return "measured"
        return "computed" if self.networks[name].source.startswith("docs/") else "assumed"

    def cpu_cost(self, core_s: float) -> float:
        """USD for a million requests on vCPUs."""
        return self.assumed["vcpu_hour"] * core_s / self.assumed["use"] / 3600 * 1e6

    def replicas(self, rate: float, core_s: float) -> int:
        """Replicas of one vCPU for so many requests/s."""
        return math.ceil(rate * core_s / self.assumed["use"]) + int(self.assumed["spare"])

    def gpu_s(self, network: Network, rows: float, precision: str) -> tuple[float, str]:
        """Least seconds of a batch at full depth on a T4, and what bounds it."""
        assumed, size = self.assumed, PRECISIONS[precision]
        peak = assumed[f"t4_{precision}_flops"] * assumed["reached_flops"]
        bandwidth = assumed["t4_bytes"] * assumed["reached_bytes"]
        moved = size * (network.weights + rows * network.activations)
        return max(
            (rows * network.flops / peak, "compute"),
            (moved / bandwidth, "memory"),
            (network.kernels * assumed["launch"], "launches"),
        )

    def ways_s(self, network: Network, rows: int, precision: str) -> tuple[float, float, float]:
        """Seconds of a batch: at full depth; with the router; the same, with deep rows gathered.

        Rows leave at the first decision or never, in such shares that the run rate is right. As
        they come, the deep rows of a batch run on alone. Gathered, they wait for those of other
        batches, and run when there are as many as a batch holds.
        """
        launches_s = network.kernels * self.assumed["launch"]
        decided_s = self.assumed["decision"] * launches_s
        deep = network.run_rate
        any_deep = 1 - (1 - deep) ** rows
        alone_s, _ = self.gpu_s(network, max(1.0, rows * deep / any_deep), precision)
        together_s, _ = self.gpu_s(network, rows, precision)
        return (
            together_s,
            decided_s + any_deep * network.stages * alone_s,
            decided_s + deep * network.stages * together_s,
        )

    def gpu_rate(self, batch_s: float, rows: int) -> float:
        """Requests/s of one row each on a machine with a T4; its vCPUs are a bound, too."""
        return min(rows / batch_s, self.assumed["t4_vcpus"] / self.request_s)

    def gpu_cost(self, rate: float) -> float:
        """USD for a million requests on that machine."""
        hour = self.assumed["t4_hour"] + self.assumed["t4_vcpus"] * self.assumed["vcpu_hour"]
        return hour / (rate * self.assumed["use"] * 3600) * 1e6

    def ridge(self, precision: str) -> float:
        """FLOPs a byte from which on a T4 is bound by compute."""
        return self.assumed[f"t4_{precision}_flops"] / self.assumed["t4_bytes"]
