"""`skipserve report`: measures a model and writes a page with figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skipserve.artifacts.certificates import Refusal
from skipserve.certification.certify import rows_by_class, shortest_fixed
from skipserve.errors import ConfigError
from skipserve.intervals import percent, spelled
from skipserve.reporting.cost import Cost, in_any_part, measure_costs
from skipserve.reporting.curves import Curve, baselines, signal_curves
from skipserve.reporting.inputs import Depths
from skipserve.reporting.inspect import Inspection, inspect_model, open_engine
from skipserve.reporting.model import Model
from skipserve.reporting.readings import Reading, read_engine, read_network, with_streams
from skipserve.reporting.sample import Sample, split_of
from skipserve.reporting.served import (
    Point,
    Routed,
    certified_points,
    refusals,
    routed_at,
    settled,
)
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.tasks import Units, counted

# Signals are fitted on half of these rows of the propose split, thresholds on the other half.
PROPOSING_ROWS = 10_000

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
        points: The certificates that hold for the files in use.
        refused: The risks that were tested on them and not certified.
        routed: The router at ``risk``, or ``None`` if it is not certified.
        fixed: Fewest blocks that can be certified for each certified risk, for every row alike.
        depths: Which inputs go deep.
        costs: Milliseconds, by batch size.
        engine: The open files, or ``None`` without an artifact.
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
        say: Receives what is being done.

    Raises:
        ConfigError: If there is nothing that can be stopped early, or the risk is not certified.
    """
    notes: list[str] = []
    if counted(model.task) == "queries":
        notes.append(
            "Certificates, fixed depths and the verdict count queries; the curves count single "
            "scores that lie beyond the tolerance"
        )
    engine = open_engine(model)
    say(f"reading {len(sample):,} rows at every depth")
    reading = _read(model, engine, sample.rows, batch_size)
    curves = baselines(reading.by_depth(sample.labels))
    points, routed, refused, fixed = _certified(model, engine, sample, batch_size, risk, say, notes)
    chosen = routed.risk if routed is not None else (risk or 0.01)
    inspection = inspect_model(model, sample, chosen, reading, engine, say)
    say("trying every signal")
    curves += _signals(model, engine, sample, reading, batch_size, notes)
    costs: list[Cost] = []
    if engine is not None:
        # The whole network exported alone, too: where no fixed depth holds, that is what is left.
        cuts = set(fixed.values())
        if inspection.prospect is not None and not fixed:
            cuts = {inspection.prospect.fixed}
        sizes = list(dict.fromkeys((1, batch_size)))
        rows = sample.rows if routed is None else sample.rows[in_any_part(routed.depth_run)]
        costs = measure_costs(model, engine, rows, sizes, sorted(cuts), say)
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
        depths=_depths(model, engine, sample, reading, routed, batch_size),
        costs=tuple(costs),
        engine=engine,
        notes=(*inspection.notes, *notes),
    )


def _read(model: Model, engine: Engine | None, rows: Rows, batch_size: int) -> Reading:
    """Answers at each depth: from the files, or from PyTorch where exits share the head."""
    spec = None if engine is None else engine.manifest.router
    shared = spec is None or all(one.hidden is None for one in spec.exits if one.leaves)
    if model.checkpoint is None:
        assert engine is not None
        return read_engine(engine, rows, batch_size)
    network, (inputs,) = model.checkpoint.network, rows.tensors.values()
    if engine is None or shared:
        return read_network(network, inputs)
    return with_streams(read_engine(engine, rows, batch_size), network, inputs)


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
            raise ConfigError(f"--risk must lie between 0 and 1, got {spelled(risk)}")
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
            f"Nothing is certified for the {engine.precision} files on {engine.provider}, so the "
            f"router is off; run {build}, or `skipserve certify {model.artifact.directory}`"
        )
        return [], None, refused, {}
    chosen = _chosen(engine, risk)
    say("running the router at every certified risk")
    full = engine.run_batches(sample.rows, engine.off, batch_size)
    points = certified_points(engine, sample, full, batch_size)
    routed = routed_at(engine, sample, full, chosen, batch_size)
    say("certifying fixed depths by the same test")
    try:
        tested = split_of(model, "certify")
    except ConfigError as error:
        notes.append(f"Fixed depths are not certified: {error}")
        return points, routed, refused, {}
    read = _read(model, engine, tested.rows, batch_size)
    units = Units(read.task, len(tested), tested.queries)
    agrees, spec = units.agree_by_depth(read.answers), engine.manifest.router
    full_labels = read.task.labels(read.answers[:, -1])
    classes = rows_by_class(read.task, full_labels, spec is not None and spec.per_class)
    fixed = {
        one: shortest_fixed(read.blocks, agrees, one, certificate.confidence, classes)
        for one, certificate in engine.certified().items()
    }
    return points, routed, refused, fixed


def _chosen(engine: Engine, risk: float | None) -> float:
    have = sorted(engine.certified())
    if risk is None:
        return min(have, key=lambda one: abs(np.log(one / 0.01)))
    if risk not in have:
        names = ", ".join(map(spelled, have))
        raise ConfigError(f"--risk {spelled(risk)} is not certified, only {names}")
    return risk


def _signals(
    model: Model,
    engine: Engine | None,
    sample: Sample,
    reading: Reading,
    batch_size: int,
    notes: list[str],
) -> list[Curve]:
    left_out = "Signals are not compared"
    if not model.skippable:
        notes.append(f"{left_out}: a plain network has nothing to skip")
        return []
    try:
        rows = split_of(model, "propose").rows[:PROPOSING_ROWS]
    except ConfigError as error:
        notes.append(f"{left_out}: {error}")
        return []
    return signal_curves(_read(model, engine, rows, batch_size), reading, sample.labels)


def _depths(
    model: Model,
    engine: Engine | None,
    sample: Sample,
    reading: Reading,
    routed: Routed | None,
    batch_size: int,
) -> Depths:
    name = next(iter(sample.rows.tensors))
    if engine is not None and routed is not None:
        setting, ready = engine.setting(routed.risk), engine
        return Depths(
            of=lambda rows: ready.run_batches(Rows({name: rows}), setting, batch_size).depth_run,
            sample=routed.depth_run,
            settled=routed.settled,
            held_back=routed.held_back,
            decided_by=f"the blocks the router runs at ε = {percent(routed.risk)}",
            depth=model.depth,
        )
    return Depths(
        of=lambda rows: _read(model, engine, Rows({name: rows}), batch_size).by_depth().oracle,
        sample=reading.by_depth().oracle,
        settled=settled(model.task, reading.answers[:, -1]),
        held_back=np.zeros(len(sample), dtype=bool),
        decided_by="the fewest blocks after which the answer is that of full depth",
        depth=model.depth,
    )
