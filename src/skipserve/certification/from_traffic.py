"""Earned bounds of a certificate file, from the events of a ledger."""

from __future__ import annotations

from collections.abc import Sequence

from skipserve.artifacts.certificates import WrittenThresholds
from skipserve.certification.certificate_file import Crossing, Earned, Epoch, Proposal
from skipserve.earning.events import Begun, Crossed, Event, Proposed
from skipserve.earning.ladder import OWN, Place
from skipserve.earning.rules import Rules
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.errors import ConfigError
from skipserve.intervals import spelled
from skipserve.slices import Slice


def earned_bound(
    rules: Rules,
    events: Sequence[Event],
    risk: float,
    place: Place,
    rows: int,
    *,
    candidates: Sequence[WrittenThresholds],
    guard_limit: float | None,
    confidence: float,
    of_slice: Slice | None = None,
) -> Earned:
    """The proof of a candidate that is in force.

    Args:
        rules: That the epochs went by.
        events: All that happened, in order.
        risk: ε.
        place: The candidate in force for it, in its ladder.
        rows: Evidence rows of the present epoch.
        candidates: The artifact's own thresholds, from careful to bold.
        guard_limit: The artifact's own; ``None`` is +inf, off.
        confidence: 1 − δ that the model asks for, of which the rules may have a share.
        of_slice: Of the traffic; ``None`` is all of it.

    Raises:
        ConfigError: If no epoch has earned it.
    """
    begun = [event for event in events if isinstance(event, Begun)]
    proposed = {event.epoch: event for event in events if isinstance(event, Proposed)}
    crossed: dict[int, dict[int, Crossed]] = {}
    for event in events:
        if isinstance(event, Crossed) and event.risk == risk:
            crossed.setdefault(event.epoch, {}).setdefault(event.candidate, event)
    places = range(place.candidate + 1)
    epochs = [
        epoch
        for epoch, found in crossed.items()
        if all(k in found for k in places)
        and (proposed[epoch].proposal if epoch in proposed else OWN) == place.proposal
    ]
    if not epochs:
        raise ConfigError(
            f"candidate {place.candidate + 1} was not earned at risk {spelled(risk)}: there is "
            "nothing to export until it is"
        )
    epoch = max(epochs)
    proof = [crossed[epoch][k] for k in places]
    proposal = None
    if place.proposal != OWN:
        of = proposed[epoch]
        candidates, guard_limit = of.candidates, of.guard_limit
        proposal = Proposal(rows=of.rows, name=of.proposal, candidates=of.candidates)
    lengths = [*(event.rows_before for event in begun[1:]), rows]
    return Earned(
        risk=risk,
        confidence=confidence,
        share=min(1.0, rules.level / (1 - confidence)),
        slice=of_slice,
        guard_limit=guard_limit,
        candidates=tuple(candidates[: place.candidate + 1]),
        epoch=epoch,
        crossings=tuple(
            Crossing(
                rows=one.rows,
                disagreements=one.disagreements,
                log_wealth=float(log_wealth(one.rows, one.disagreements, risk)),
            )
            for one in proof
        ),
        epochs=tuple(
            Epoch(
                number=event.epoch,
                because=event.because,
                level=level_of(event.epoch, rules.level),
                rows=length,
            )
            for event, length in zip(begun, lengths, strict=True)
        ),
        proposal=proposal,
    )
