"""Placing exits: what the stress test counted on is what is left in the artifact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from residual_graphs import CLASSES, Graph

from skipserve.graph.prepare import prepare
from skipserve.routing.config import ExitsConfig
from skipserve.routing.corruptible import Corruptible
from skipserve.routing.exits import Exit, Guard, Layout
from skipserve.routing.network import network_of
from skipserve.routing.placing import PlacementTrial, place
from skipserve.routing.reading import observations_of
from skipserve.routing.stopping import first_stop, inside_so_far
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.sources.brought import signature_of
from skipserve.tasks import Classify

CUTS, ROWS = 4, 1_000
# Rows are ordinary, or broken in a way that the guard at depth 1 sees or none does.
ORDINARY, SEEN, UNSEEN = 0, 1, 2


@dataclass
class Reader:
    """Reads exits off rows that say what they are.

    Attributes:
        right_from: The first cut at which rows that no guard sees are answered as at full depth.
    """

    right_from: int = 2

    def read(self, rows: Rows) -> ExitReadings:
        kind = rows.tensors["x"][:, 0].round().astype(int)
        known = rows.tensors["x"][:, 1:2].clip(0, 1)
        distances = np.repeat(known, CUTS, axis=1)
        distances[kind == SEEN, 1] = 9
        labels = np.zeros((len(kind), CUTS + 1), int)
        labels[kind == SEEN, :CUTS] = 1
        labels[kind == UNSEEN, : self.right_from] = 1
        signals = np.ones((len(kind), CUTS), np.float32)
        return ExitReadings(np.eye(CLASSES, dtype=np.float32)[labels], signals, distances)


def network():
    made = Graph()
    x = "x"
    for _ in range(CUTS):
        x = made.block(x)
    model = made.model(made.weigh(x, b=CLASSES))
    return network_of(prepare(model), signature_of(model), Classify(classes=CLASSES))


def rows_of(kinds):
    x = np.zeros((len(kinds), 6), np.float32)
    x[:, 0] = kinds
    x[:, 1] = np.linspace(0, 1, len(kinds))
    return Rows({"x": x})


def broken(x, about, random):
    """Four rows of five are seen by the guard at depth 1."""
    made = x.copy()
    made[:, 0] = np.where(np.arange(len(x)) % 5 < 4, SEEN, UNSEEN)
    return made


def same(x, about, random):
    """A kind that changes nothing."""
    return x


def placed(monkeypatch, config=None, guarded=range(CUTS)):
    monkeypatch.setattr(Corruptible, "hard", {"broken": broken})
    monkeypatch.setattr(Corruptible, "mild", {"the same": same})
    none = np.zeros((1, 1), np.float32)
    exits = tuple(
        Exit(i, Layout("vector", (1,)), Guard(none[0], none), None, "margin") for i in range(CUTS)
    )
    config = config or ExitsConfig()
    known, rows = network(), rows_of([ORDINARY] * ROWS)
    readings = Reader().read(rows)
    limit = np.full(CUTS, 0.995 if config.guard < 1 else np.inf)
    seen = observations_of(known, exits, readings, limit)
    kept = tuple(range(CUTS))
    trial = PlacementTrial(
        exits, Reader(), readings.distances, seen, kept, tuple(guarded), "by hand", 1.0
    )
    return place(known, trial, config, rows, lambda line: None)


def test_guards_that_the_stress_test_counted_on_stay(monkeypatch):
    router = placed(monkeypatch)
    (result,) = router.stress  # what changed no row tells nothing and is not there
    assert (result.disagreement, result.held_back) == (0.0, pytest.approx(0.8, abs=0.01))
    assert result.passes
    assert router.first == "an exit after 1 blocks would disagree on 20% of rows with broken"
    found = [(one.blocks, one.leaves) for one in router.exits]
    assert found == [(0, False), (1, False), (2, True), (3, True)]
    # The same rows through what is left: as the stress test said.
    x = rows_of([ORDINARY] * ROWS).tensors["x"]
    read = Reader().read(Rows({"x": broken(x, None, None)}))
    cuts = [one.blocks for one in router.exits]
    leaves = [one.leaves for one in router.exits]
    inside = inside_so_far(read.distances[:, cuts], 0.995)[:, leaves]
    where = first_stop(np.ones((ROWS, 2), np.float32), np.ones((1, 2), np.float32), inside)
    answers = read.answers[:, [*np.array(cuts)[leaves], CUTS]][np.arange(ROWS), where]
    assert (answers.argmax(axis=1) != 0).mean() == result.disagreement
    assert (where == 2).mean() == pytest.approx(result.held_back, abs=0.01)


def test_where_no_corruption_changes_a_row_only_the_last_exit_is_left(monkeypatch):
    monkeypatch.setattr(f"{__name__}.broken", same)
    router = placed(monkeypatch)
    assert router.stress == ()
    assert router.first == "no corruption changes these rows, so no depth was tested"
    assert [one.leaves for one in router.exits] == [False, False, False, True]


def test_without_guards_no_cut_stands_before_the_first_exit_but_depth_0(monkeypatch):
    router = placed(monkeypatch, ExitsConfig(guard=1.0))
    assert router.stress[0].held_back == 0
    assert router.first.endswith("; no depth is safe from it")
    assert [(one.blocks, one.leaves) for one in router.exits] == [(0, False), (3, True)]
