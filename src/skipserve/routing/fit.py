"""Fitting a router to a graph: guards and heads at every cut, some of which become exits.

Nothing here needs labels, or the network in any framework: activations come from ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skipserve.errors import ConfigError, CutError
from skipserve.graph.cut import Stages, cut
from skipserve.routing.activations import read_activations
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.corruptible import Corruptible
from skipserve.routing.exits import Exit, Layout, layout_of
from skipserve.routing.guards import fit_guard
from skipserve.routing.heads import FittedHead, fit_heads
from skipserve.routing.network import Network, tail_of
from skipserve.routing.placing import FittedRouter, everywhere, place, weigh
from skipserve.routing.projection import fisher
from skipserve.runtime.rows import Rows
from skipserve.tasks import finite

# Heads are tried with so many hidden units, 0 being linear.
HIDDEN = (0, 128)
# A head with a hidden layer must save so much more time than one without.
WORTH = 0.98
# Exits are placed by the means of so many rows.
MOST_PROPOSING = 6_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class _ReadableCuts:
    """Cuts that can be read, their layouts, and the stages between them."""

    cuts: tuple[int, ...]  # places in Network.blocks
    layouts: tuple[Layout, ...]
    stages: Stages


def fit_router(
    network: Network,
    exits: ExitsConfig,
    router: RouterConfig,
    fitting: Rows,
    proposing: Rows,
    say: Say = lambda line: None,
) -> FittedRouter:
    """Fit the router of a network.

    Args:
        network: What is routed.
        exits: Where rows may leave and what is read there.
        router: What decides.
        fitting: Rows for heads and guards; the network may have been trained on them.
        proposing: Rows that nothing is fitted to; they set the guards' limits and place the exits.
        say: Receives progress, line by line.

    Raises:
        ConfigError: If the signal or a place asked for does not exist.
        CutError: If the graph cannot be cut, or its streams cannot be read.
    """
    if router.signal not in network.task.signals:
        raise ConfigError(
            f"signal = {router.signal!r} cannot be computed for this task; choose one of "
            f"{', '.join(network.task.signals)}"
        )
    if router.per_class and not network.task.classes:
        raise ConfigError(
            "per_class = true needs answers that are one of several classes, not "
            f"{network.task.kind}"
        )
    if router.policy == "skip":  # rows are answered at the end, by the network's own head
        exits = exits.model_copy(update={"heads": "shared"})
        if exits.at != "auto":  # there is one guard, the first
            deciding = tuple(filter(exits.allows, exits.at))
            exits = exits.model_copy(update={"at": deciding})
        _require_sums(network)
    if router.signal == "agreement" and exits.heads == "shared":
        raise ConfigError(
            "signal = 'agreement' is fitted beside exit heads; set exits.heads = 'distilled', or "
            "another signal"
        )
    found = _candidates(network, exits, fitting)
    tail = None
    if exits.heads == "shared":
        tail, shape = tail_of(network, fitting)
        _require_shape(network, found, shape)
    random = np.random.default_rng(0)
    if len(fitting) > exits.rows:
        fitting = fitting[np.sort(random.permutation(len(fitting))[: exits.rows])]
    parts = [fitting]
    if exits.corrupted and exits.heads == "distilled":
        parts += Corruptible.of(fitting, network.signature).for_fitting(fitting, random)
    say(f"reading {sum(map(len, parts)):,} rows at {len(found.cuts)} cuts")
    model, names = network.model, [network.cuts[i] for i in found.cuts]
    seen = read_activations(model, names, found.layouts, parts)
    task, widths = network.task, _hidden(exits)
    heads: dict[tuple[int, int], FittedHead] = {}
    if exits.heads == "distilled":
        jobs = [(i, width) for i in range(len(found.cuts)) for width in widths]
        estimated = router.signal == "agreement"
        heads = fit_heads(seen.features, seen.answers, task, jobs, estimated, say)
    answered = np.flatnonzero(finite(seen.answers[: len(fitting)]))
    made: dict[int, list[Exit]] = {width: [] for width in widths}
    for i, (at, layout) in enumerate(zip(found.cuts, found.layouts, strict=True)):
        clean = seen.features[i][: len(fitting)]
        guard = fit_guard(clean)
        projection = None
        if router.signal == "projected_norm":
            labels = task.labels(seen.answers[answered])
            assert labels is not None  # otherwise the task would not have this signal
            projection = fisher(clean[answered, : layout.width], labels)
        for width in widths:
            fitted = heads.get((i, width))
            made[width].append(
                Exit(
                    *(at, layout, guard, None if fitted is None else fitted.head),
                    *(router.signal, projection, None if fitted is None else fitted.estimate),
                    *(task.link, task.border),
                )
            )
    if router.policy == "skip":
        return everywhere(network, found.stages, made[0], tail, exits, proposing)
    proposing = proposing[:MOST_PROPOSING]
    best = weigh(network, found.stages, made[widths[0]], tail, exits, proposing)
    for width in widths[1:]:
        other = weigh(network, found.stages, made[width], tail, exits, proposing)
        if other.row_s < WORTH * best.row_s:
            best = other
    return place(network, best, exits, proposing, say)


def _require_sums(network: Network) -> None:
    for block in network.found.blocks:
        if not block.residual:
            raise CutError(
                f"policy = 'skip' needs blocks that add to their stream, but {block.end!r} is no "
                f"sum of {block.start!r} and something else; use policy = 'exit'"
            )


def _require_shape(network: Network, found: _ReadableCuts, last: tuple[int, ...]) -> None:
    for at, shape in zip(found.cuts, found.stages.shapes, strict=True):
        if shape != last:
            raise CutError(
                f"the network's own head reads streams of shape {list(last)}, but it is "
                f"{list(shape)} at {network.cuts[at]!r}; set exits.heads = 'distilled' and "
                "router.policy = 'exit'"
            )


def _hidden(exits: ExitsConfig) -> tuple[int, ...]:
    if exits.heads == "shared":
        return (0,)
    return HIDDEN if exits.hidden == "auto" else (exits.hidden,)


def _candidates(network: Network, exits: ExitsConfig, rows: Rows) -> _ReadableCuts:
    """Every cut whose stream can be read, or those of the build file."""
    depth = network.depth
    asked = tuple(range(depth)) if exits.at == "auto" else exits.at
    if asked[-1] >= depth:
        raise ConfigError(f"exits.at must lie in 0 … {depth - 1}, the blocks of the network")
    allowed = [at for at in asked if exits.allows(at)]
    if not allowed:
        raise ConfigError(
            f"exits.first = {exits.first} leaves no exit: expected 0 … {depth - 1}, or 'auto'; the "
            f"network has {depth} blocks"
        )
    # The cut at depth 0 is there for its guard, wherever exits begin; so are those that were named.
    wanted = sorted({0, *(allowed if exits.at == "auto" else asked)})
    names = [network.cuts[i] for i in wanted]
    stages = cut(network.flow, network.found, names, rows.tensors, network.signature.symbols)
    mask = network.signature.mask or ""
    layouts = []
    for i, shape in enumerate(stages.shapes):
        ahead = frozenset(node.op_type for node in stages.stages[i + 1].model.graph.node)
        layout = layout_of(shape, ahead, mask)
        if layout is None:
            raise CutError(
                f"the stream {names[i]!r} has no fixed width (its shape is {list(shape)}): "
                "nothing can be read there"
            )
        layouts.append(layout)
    return _ReadableCuts(tuple(wanted), tuple(layouts), stages)
