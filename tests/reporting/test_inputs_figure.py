"""The figure of inputs: the easiest and the hardest are drawn, or it says why none are."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.reporting.figures import Figure
from skipserve.reporting.inputs import Depths, inputs_figure
from skipserve.reporting.sample import Sample
from skipserve.runtime.rows import Rows


def sample_of(inputs, labels):
    return Sample(Rows({"inputs": inputs}), labels, "rows")


def depths(count):
    return Depths(
        of=lambda rows: np.ones(len(rows), dtype=np.int64),
        sample=np.arange(count) % 4 + 1,
        settled=np.linspace(0, 1, count, dtype=np.float32),
        held_back=np.arange(count) == 3,  # the deepest and least sure of all
        decided_by="chance",
        depth=4,
    )


def test_the_easiest_and_the_hardest_signals_are_drawn():
    inputs = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    drawn = inputs_figure(sample_of(inputs, np.arange(40)), depths(40))
    assert isinstance(drawn, Figure)
    # Easiest: the shallow and sure ones; hardest: the deep and unsure ones.
    for row, blocks in ((36, "1 block"), (16, "1 block"), (7, "4 blocks"), (27, "4 blocks")):
        assert f"class {row}, {blocks}<" in drawn.svg
    assert "class 3," not in drawn.svg
    assert "2 blocks" not in drawn.svg
    # Of four classes each is drawn once before any is drawn again.
    few = inputs_figure(sample_of(inputs, np.arange(40) // 10), depths(40))
    assert isinstance(few, Figure)
    assert [few.svg.count(f"class {one}, 4 blocks<") for one in range(4)] == [1, 3, 1, 1]


@pytest.mark.parametrize(
    ("shape", "says"), [((5, 12), "5 rows are too few"), ((40, 3), "neither"), ((40, 4, 4), "nei")]
)
def test_inputs_that_cannot_be_drawn_say_why(shape, says):
    said = inputs_figure(sample_of(np.zeros(shape, dtype=np.float32), None), depths(shape[0]))
    assert isinstance(said, str)
    assert says in said
