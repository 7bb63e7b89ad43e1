"""`skipserve report`: measure a model, and write one page and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Refusal
from skipserve.errors import ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.reporting.cost import Cost, measure_costs
from skipserve.reporting.curves import Curve, baselines, signal_curves
from skipserve.reporting.inputs import Depths
from skipserve.reporting.inspect import Inspection, inspect_model, routed_engine
from skipserve.reporting.model import Model
from skipserve.reporting.rate import percent
from skipserve.reporting.readings import BATCH, read_engine, read_network, read_pooled
from skipserve.reporting.sample import Sample
from skipserve.reporting.served import (
    Point,
    Routed,
    certified_points,
    refusals,
    routed_at,
)
from skipserve.routing.config import ExitHeads
from skipserve.routing.fit import pooled_streams
from skipserve.routing.judge import Readings, shortest_fixed
from skipserve.runtime.engine import Engine
from skipserve.training.recipes import open_recipe

# Signals are fitted on half of these rows of the propose split, thresholds on the other half.
PROPOSING_ROWS = 10_000
FEWEST_PROPOSING = 200

Say = Callable[[str], None]


@dataclass(frozen=True)
class Findings:
    """Everything a report says; all but ``costs`` is the same whenever it is measured.

    Attributes:
        model: What was measured.
        sample: With which rows.
        risk: ε that the first line speaks of.
        inspection: The network block by block.
        curves: Disagreement and accuracy against blocks run.
        points: The certificates that hold for the file in use.
        refused: The risks that were tested on it and not certified.
        routed: The router at ``risk``, or ``None`` if it is not certified.
        fixed: Fewest blocks that can be certified for each certified risk, for every row alike.
        depths: Which inputs go deep.
        costs: Milliseconds, by batch size.
        engine: The open file, or ``None`` without an artifact.
        notes: What is left out and why, a sentence each.
    """

    model: Model
    sample: Sample
    risk: float
    inspection: Inspection
    curves: tuple[Curve, ...]
    points: tuple[Point, ...]
    refused: tuple[Refusal, ...]
    routed: Routed | None
    fixed: dict[float, int]
    depths: Depths
    costs: tuple[Cost, ...]
    engine: Engine | None
    notes: tuple[str, ...]


def measure(
    model: Model, sample: Sample, batch_size: int, risk: float | None = None, say: Say = print
) -> Findings:
    """Measure everything a report says.

    Args:
        model: With a checkpoint, or an artifact with a router.
        sample: Rows that nothing was trained, proposed or certified on.
        batch_size: That it serves with.
        risk: ε of the first line; by default the certified one nearest to 1 %.
        say: Told what is being done.

    Raises:
        ConfigError: If there is nothing that can be stopped early, or the risk is not certified.
    """
    network = None if model.checkpoint is None else model.checkpoint.network
    notes: list[str] = []
    engine = _engine(model, network)
    say(f"reading {len(sample):,} rows after every block")
    pooled = None
    if network is not None:
        pooled = pooled_streams(network, torch.from_numpy(sample.inputs), BATCH)
    if network is not None and pooled is not None and _one_head(model):
        readings = read_pooled(network, pooled)
    else:
        assert engine is not None
        readings = read_engine(engine, sample.inputs, batch_size)
    curves = baselines(readings, sample.labels)
    points, routed, refused, fixed = _certified(model, engine, sample, batch_size, risk, say, notes)
    chosen = routed.risk if routed is not None else (risk or 0.01)
    inspection = inspect_model(model, sample, chosen, readings)
    if network is not None and pooled is not None:
        curves += _signals(model, network, sample, pooled, say, notes)
    costs: list[Cost] = []
    if engine is not None:
        say("measuring milliseconds")
        # The whole network exported alone, too: where no fixed depth holds, that is what is left.
        cuts = set(fixed.values())
        if inspection.prospect is not None and not fixed:
            cuts = {inspection.prospect.fixed}
        sizes = list(dict.fromkeys((1, batch_size)))
        costs = measure_costs(engine, network, sample.inputs, sizes, sorted(cuts))
    return Findings(
        model=model,
        sample=sample,
        risk=chosen,
        inspection=inspection,
        curves=tuple(curves),
        points=tuple(points),
        refused=tuple(refused),
        routed=routed,
        fixed=fixed,
        depths=_depths(model, engine, readings, routed, batch_size, pooled),
        costs=tuple(costs),
        engine=engine,
        notes=(*inspection.notes, *notes),
    )


def _engine(model: Model, network: ResidualNetwork | None) -> Engine | None:
    if network is None:
        return routed_engine(model)
    return None if model.artifact is None else Engine(model.artifact)


def _one_head(model: Model) -> bool:
    """Whether rows that leave are answered by the network's own head, and not by distilled ones."""
    spec = None if model.artifact is None else model.artifact.manifest.router
    return spec is None or spec.exit_heads == "shared"


def _certified(
    model: Model,
    engine: Engine | None,
    sample: Sample,
    batch_size: int,
    risk: float | None,
    say: Say,
    notes: list[str],
) -> tuple[list[Point], Routed | None, list[Refusal], dict[float, int]]:
    nothing: tuple[list[Point], None, list[Refusal], dict[float, int]] = ([], None, [], {})
    build = f"`skipserve build export/{model.name}.toml`"
    if engine is None or engine.manifest.router is None:
        if risk is not None and not 0 < risk < 1:
            raise ConfigError(f"--risk must lie between 0 and 1, got {risk:g}")
        if engine is not None:
            notes.append(
                f"{model.name} has no router: certified points, the histogram of depths and who "
                f"bears the risk are left out; add [router] to export/{model.name}.toml and run "
                + build
                if model.skippable
                else f"{model.name} is plain: no router can skip any of it"
            )
        return nothing
    assert model.artifact is not None
    refused = refusals(engine, model.artifact.certificates.refusals)
    if not engine.certified():
        notes.append(
            f"Nothing is certified for the {engine.precision} file on {engine.provider}, so the "
            f"router is off; run {build}, or `skipserve certify {model.artifact.directory}`"
        )
        return [], None, refused, {}
    chosen = _chosen(engine, risk)
    say("running the router at every certified risk")
    full = engine.run_batches(sample.inputs, engine.off, batch_size).labels
    points = certified_points(engine, sample, full, batch_size)
    routed = routed_at(engine, sample, full, chosen, batch_size)
    say("certifying fixed depths by the same test")
    tested = _certify_rows(model, notes)
    if tested is None:
        return points, routed, refused, {}
    if model.checkpoint is not None and _one_head(model):
        readings = read_network(model.checkpoint.network, tested)
    else:
        readings = read_engine(engine, tested, batch_size)
    fixed = {
        one: shortest_fixed(readings, one, certificate.confidence)
        for one, certificate in engine.certified().items()
    }
    return points, routed, refused, fixed


def _chosen(engine: Engine, risk: float | None) -> float:
    have = sorted(engine.certified())
    if risk is None:
        return min(have, key=lambda one: abs(np.log(one / 0.01)))
    if risk not in have:
        names = ", ".join(f"{one:g}" for one in have)
        raise ConfigError(f"--risk {risk:g} is not certified, only {names}")
    return risk


def _certify_rows(model: Model, notes: list[str]) -> NDArray[np.float32] | None:
    try:
        rows: NDArray[np.float32] = open_recipe(model.recipe).draw("certify").inputs.numpy()
    except ConfigError as error:
        notes.append(f"Fixed depths are not certified: {error}")
        return None
    return rows


def _signals(
    model: Model,
    network: ResidualNetwork,
    sample: Sample,
    pooled: torch.Tensor,
    say: Say,
    notes: list[str],
) -> list[Curve]:
    spec = None if model.artifact is None else model.artifact.manifest.router
    decisions = spec.decisions if spec is not None else range(1, model.depth)
    left_out = "Signals and policies are not compared"
    if not model.skippable:
        notes.append(f"{left_out}: a plain network has nothing to skip")
        return []
    if not decisions:
        notes.append(f"{left_out}: a network of one block has nothing to leave out")
        return []
    try:
        proposing = open_recipe(model.recipe).draw("propose").inputs[:PROPOSING_ROWS]
    except ConfigError as error:
        notes.append(f"{left_out}: {error}")
        return []
    heads: ExitHeads = "shared" if spec is None else spec.exit_heads
    return signal_curves(network, decisions, proposing, sample, pooled, heads, say)


def _depths(
    model: Model,
    engine: Engine | None,
    readings: Readings,
    routed: Routed | None,
    batch_size: int,
    pooled: torch.Tensor | None,
) -> Depths:
    if engine is not None and routed is not None:
        setting, ready = engine.setting(routed.risk), engine
        return Depths(
            of=lambda rows: ready.run_batches(rows, setting, batch_size).depth_run,
            sample=routed.depth_run,
            settled=routed.confidence,
            held_back=routed.held_back,
            decided_by=f"the blocks the router runs at ε = {percent(routed.risk)}",
            depth=model.depth,
        )
    nothing_held = np.zeros(len(readings.labels), dtype=bool)
    said = "the fewest blocks after which the answer is that of full depth"
    if model.checkpoint is None:
        assert engine is not None
        opened = engine
        return Depths(
            of=lambda rows: read_engine(opened, rows, batch_size).oracle,
            sample=readings.oracle,
            settled=np.zeros(len(readings.labels), dtype=np.float32),
            held_back=nothing_held,
            decided_by=said,
            depth=model.depth,
        )
    network = model.checkpoint.network
    assert pooled is not None
    with torch.no_grad():
        confidence = network.head(pooled[:, -1]).softmax(dim=-1).amax(dim=-1).numpy()
    return Depths(
        of=lambda rows: read_network(network, rows).oracle,
        sample=readings.oracle,
        settled=confidence,
        held_back=nothing_held,
        decided_by=said,
        depth=model.depth,
    )
