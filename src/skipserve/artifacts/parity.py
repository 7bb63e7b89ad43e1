"""Parity: does the exported file compute what the network computes?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.artifacts.manifest import Parity, Precision
from skipserve.errors import ParityError
from skipserve.networks import ResidualNetwork

# Largest absolute difference of a probability. FP32 leaves room for reordered sums; FP16 has
# 11 bits, and a logit of size 10 is known to 0.005, a quarter of which reaches a probability.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
LARGEST_FP16 = 65_504.0

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


class Reference:
    """The network's own answers in FP64, and the rows they were asked on.

    Args:
        network: The network, of any precision.
        real: Real rows [N, *inputs]; as many random rows, and as many far ones (three
            deviations wide), are added from a fixed seed.

    Attributes:
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
        self.probabilities = logits.softmax(dim=-1).numpy()

    def _watch(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.largest_activation = max(self.largest_activation, output.abs().max().item())


def check_parity(run: Run, reference: Reference, precision: Precision, file: str) -> Parity:
    """Compare a file's probabilities with the reference, in one batch and row by row.

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
    difference = np.abs(run({"inputs": rows})["probabilities"] - reference.probabilities)
    single = np.concatenate([run({"inputs": rows[i : i + 1]})["probabilities"] for i in range(8)])
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
