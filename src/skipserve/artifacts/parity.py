"""Parity: does the exported file compute what the network computes?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.artifacts.manifest import DecisionParity, Parity, Precision
from skipserve.artifacts.trail import Trail
from skipserve.errors import ParityError
from skipserve.networks import ResidualNetwork
from skipserve.routing.routed import RoutedNetwork, Router

# Largest absolute difference of a probability. FP32 leaves room for reordered sums; FP16 has
# 11 bits, and a logit of size 10 is known to 0.005, a quarter of which reaches a probability.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
LARGEST_FP16 = 65_504.0
# Signals nearer to a threshold than this, relative to it, are ties. FP16 streams carry 11 bits.
TIE_BANDS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
FEWEST_EQUAL: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.99}

# Beyond what float32 can square, and how many real rows are taken there.
FAR, FAR_ROWS = 1e20, 8

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


class Reference:
    """The network's own answers in FP64, and the rows they were asked on.

    Args:
        network: The network, of any precision.
        real: Real rows [N, *inputs]; as many random rows, and as many far ones (three
            deviations wide), are added from a fixed seed.

    Attributes:
        network: As it was given.
        inputs: All rows [3N, *inputs], float32.
        probabilities: FP64 answers [3N, classes].
        largest_activation: Largest absolute value any layer put out on them.
    """

    def __init__(self, network: ResidualNetwork, real: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, *real.shape, generator=generator)
        spread = noise * torch.tensor([1.0, 3.0]).view(2, *[1] * real.dim())
        scaling = network.scaling
        far = spread * scaling.deviation + scaling.mean
        self.inputs = torch.cat([real, *far]).float()
        self.largest_activation = 0.0
        double = copy.deepcopy(network).double().eval()
        for module in double.modules():
            module.register_forward_hook(self._watch)
        with torch.no_grad():
            logits = double(self.inputs.double())
        self.network = network
        self.probabilities = logits.softmax(dim=-1).numpy()

    def _watch(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.largest_activation = max(self.largest_activation, output.abs().max().item())


def check_parity(
    run: Run, reference: Reference, precision: Precision, file: str, decisions: int = 0
) -> Parity:
    """Compare a file's probabilities with the reference, in one batch and row by row.

    Args:
        run: The open file.
        reference: What it must agree with.
        precision: Of the file.
        file: Its name, for the error.
        decisions: Thresholds a row has; they are +inf here, so that everything runs.

    Raises:
        ParityError: If a difference exceeds the tolerance of the precision, if a value is not
            finite, or if FP16 cannot hold the network's activations.
    """
    if precision == "fp16" and reference.largest_activation > LARGEST_FP16:
        raise ParityError(
            f"{file}: an activation reaches {reference.largest_activation:.3g}, FP16 ends at "
            f"{LARGEST_FP16:g}; leave 'fp16' out of [export] precisions, or train with a norm"
        )
    rows = reference.inputs.numpy()

    def answers(part: NDArray[Any]) -> NDArray[Any]:
        return run({"inputs": part, **_router_off(len(part), decisions)})["probabilities"]

    difference = np.abs(answers(rows) - reference.probabilities)
    single = np.concatenate([answers(rows[i : i + 1]) for i in range(8)])
    largest = max(
        float(difference.max()), float(np.abs(single - reference.probabilities[:8]).max())
    )
    tolerance = TOLERANCES[precision]
    if not largest <= tolerance:  # also true of NaN
        raise ParityError(
            f"{file}: a probability differs by {largest:.3g} from the FP64 network, "
            f"allowed are {tolerance:g}; the artifact was not written"
        )
    return Parity(tolerance=tolerance, largest_difference=largest, rows=len(rows))


class RoutedReference:
    """The eager FP32 router's decisions on real rows, at thresholds across its signals.

    Args:
        network: The network.
        router: Its router.
        real: Real rows [N, *inputs].
        guard_limit: Of the router.
    """

    def __init__(
        self, network: ResidualNetwork, router: Router, real: Tensor, guard_limit: float
    ) -> None:
        routed = RoutedNetwork(network, router).eval()
        with torch.no_grad():
            streams = list(network.streams(real))
            pooled = [network.pool(streams[blocks]) for blocks in router.decisions]
            pairs = zip(routed.signals, pooled, strict=True)
            signals = torch.stack([signal(row) for signal, row in pairs], dim=1)
            # Spread over values, not rows: confidence crowds below 1, where FP16 sees only ties.
            low, high = signals.amin(dim=0), signals.quantile(0.95, dim=0)
            rows, decisions = torch.arange(len(real))[:, None], torch.arange(signals.shape[1])
            place = (1 + rows // signals.shape[1] % 3) / 4
            # Each row is first asked at a decision of its own: else few would get to the last.
            first = rows % signals.shape[1]
            self._thresholds = torch.where(decisions < first, torch.inf, low + place * (high - low))
            self._distance = routed.guard(streams[router.decisions[0]])
            limit = min(guard_limit, float(torch.quantile(self._distance, 0.9)))
            self._limit = torch.full((len(real),), limit)
            _, depth, held, flat = routed(real, self._thresholds, self._limit)
            self._far = _far(real[:FAR_ROWS])
            self._far_held = routed(self._far, *self._all_stop(limit))[2].numpy()
        self._depth, self._held = depth.numpy(), held.numpy()
        self._blocks = network.config.depth
        trail = Trail(flat.numpy(), self._depth, router.decisions, router.policy)
        self._signals = torch.from_numpy(trail.signals())
        self._real = real

    def check(self, run: Run, precision: Precision, file: str) -> DecisionParity:
        """Compare a file's decisions, all rows in one batch.

        Raises:
            ParityError: If more rows differ than the precision explains, or a row skips that lies
                so far out that its square overflows.
        """
        band = TIE_BANDS[precision]
        # Of decisions that a row never got to the signal is NaN, and not near anything.
        away = (self._signals - self._thresholds).abs()
        asked = self._thresholds.isfinite()
        near = (asked & (away <= band * self._thresholds.abs())).any(1)
        near |= (self._distance - self._limit).abs() <= band * self._limit
        clear = ~near.numpy()
        got = run(
            {
                "inputs": self._real.numpy(),
                "thresholds": self._thresholds.numpy(),
                "guard_limit": self._limit.numpy(),
            }
        )
        same = (got["depth_run"] == self._depth) & (got["held_back"] == self._held)
        equal = float(same[clear].mean()) if clear.any() else 1.0
        if equal < FEWEST_EQUAL[precision]:
            raise ParityError(
                f"{file}: only {equal:.2%} of {clear.sum()} rows outside the tie band run as deep "
                f"as the eager router runs them, expected {FEWEST_EQUAL[precision]:.0%}"
            )
        self._check_far(run, file)
        return DecisionParity(tie_band=band, rows=int(clear.sum()), equal=equal)

    def _check_far(self, run: Run, file: str) -> None:
        thresholds, limit = self._all_stop(float(self._limit[0]))
        feeds = {"inputs": self._far, "thresholds": thresholds, "guard_limit": limit}
        got = run({name: values.numpy() for name, values in feeds.items()})
        full = got["held_back"] & (got["depth_run"] == self._blocks)
        passed = int((self._far_held & ~full).sum())
        if passed:
            raise ParityError(
                f"{file}: lets {passed} of {len(full)} rows of magnitude {FAR:g} skip that the "
                "eager guard holds back; the artifact was not written"
            )

    def _all_stop(self, limit: float) -> tuple[Tensor, Tensor]:
        """Thresholds at which nothing but the guard keeps the far rows from leaving."""
        count = len(self._far)
        thresholds = torch.full((count, self._thresholds.shape[1]), -torch.inf)
        return thresholds, torch.full((count,), limit)


def _far(real: Tensor) -> Tensor:
    """Real rows scaled beyond what can be squared, and as they are but for one such feature."""
    largest = torch.finfo(torch.float32).max
    spiked = real.clone().flatten(1)
    spiked[torch.arange(len(real)), torch.arange(len(real)) % spiked.shape[1]] = FAR
    return torch.cat([(real * FAR).clamp(-largest, largest), spiked.view_as(real)])


def _router_off(rows: int, decisions: int) -> dict[str, NDArray[Any]]:
    if not decisions:
        return {}
    return {
        "thresholds": np.full((rows, decisions), np.inf, dtype=np.float32),
        "guard_limit": np.full(rows, np.inf, dtype=np.float32),
    }
