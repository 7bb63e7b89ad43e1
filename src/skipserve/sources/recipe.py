"""Recipes as sources: the checkpoint becomes a plain graph, the splits become rows."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.origin import Origin
from skipserve.artifacts.parity import Expected
from skipserve.artifacts.torch_files import plain_graph
from skipserve.graph.precision import largest_activation
from skipserve.networks import NetworkConfig, ResidualNetwork
from skipserve.routing.network import network_of
from skipserve.runtime.rows import Rows
from skipserve.signature import BATCH, Signature, TensorSpec
from skipserve.sources.splits import Labelled, Splits
from skipserve.tasks import Classify
from skipserve.training.checkpoint import Checkpoint
from skipserve.training.recipes import Recipe, Samples

INPUT, OUTPUT = "inputs", "probabilities"
PARITY_ROWS = 256


def signature_of(config: NetworkConfig) -> Signature:
    """The signature of a network trained here."""
    return Signature(
        inputs=(TensorSpec(name=INPUT, dtype="float32", shape=(BATCH, *config.inputs)),),
        outputs=(TensorSpec(name=OUTPUT, dtype="float32", shape=(BATCH, config.classes)),),
    )


def recipe_origin(checkpoint: Checkpoint, recipe: Recipe) -> Origin:
    """The origin of an artifact from a checkpoint.

    Raises:
        CutError: If other blocks are found in its graph than it has.
    """
    network, config = checkpoint.network, checkpoint.network.config
    model = plain_graph(network)
    task = Classify(classes=config.classes)
    real = recipe.draw("test").inputs[:PARITY_ROWS]
    rows = torch.cat([real, *_far(network, real)]).float()
    expected = Expected(
        _rows(rows),
        _reference(network, rows),
        task,
        largest_activation(model, _rows(rows)),
    )
    source = Source(
        kind="recipe",
        name=checkpoint.run.recipe,
        sha256=checkpoint.sha256,
        network=config.model_dump(mode="json"),
        accuracy=checkpoint.run.accuracy,
    )
    found = network_of(model, signature_of(config), task, config.depth)
    return Origin(source, found, expected, network)


def recipe_splits(recipe: Recipe) -> Splits:
    """The splits of a recipe; the router is fitted on the training rows of the network."""
    train, propose = recipe.draw("train"), recipe.draw("propose")
    certify, test = recipe.draw("certify"), recipe.draw("test")
    return Splits(*(_labelled(samples) for samples in (train, propose, certify, test)))


def _labelled(samples: Samples) -> Labelled:
    return Labelled(_rows(samples.inputs), samples.labels.numpy().astype(np.int64))


def _rows(inputs: Tensor) -> Rows:
    return Rows({INPUT: inputs.numpy()})


def _far(network: ResidualNetwork, real: Tensor) -> Tensor:
    """As many random rows, and as many three deviations wide, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *real.shape, generator=generator)
    spread = noise * torch.tensor([1.0, 3.0]).view(2, *[1] * real.dim())
    far: Tensor = spread * network.scaling.deviation + network.scaling.mean
    return far


@torch.no_grad()
def _reference(network: ResidualNetwork, rows: Tensor) -> np.ndarray:
    """The network's own answers in FP64."""
    double = copy.deepcopy(network).double().eval()
    answers: np.ndarray = double(rows.double()).softmax(dim=-1).numpy()
    return answers
