"""The learning rate rises, falls and has a value at every step, however few there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skipserve.training.one_cycle import one_cycle

PEAK = 0.4


def rates(steps: int, rise: float) -> list[float]:
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=PEAK)
    schedule = one_cycle(optimizer, PEAK, steps, rise)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("rise", [0.1, 0.25])
@pytest.mark.parametrize("steps", [*range(1, 25), 40, 100])
def test_a_rate_is_positive_and_at_most_the_peak_at_every_step(steps: int, rise: float) -> None:
    found = rates(steps, rise)
    assert len(found) == steps
    assert all(0 < rate <= PEAK for rate in found)
    assert found[-1] == pytest.approx(PEAK / 25 / 1e4)
    top = found.index(max(found))
    assert found[:top] == sorted(found[:top])
    assert found[top:] == sorted(found[top:], reverse=True)
    # A rise of one step or less is none.
    assert (top > 0) == (rise * steps > 1)


def test_a_rise_of_several_steps_ends_at_the_peak() -> None:
    found = rates(40, 0.25)
    assert found.index(max(found)) == 9
    assert found[9] == pytest.approx(PEAK)
    assert found[0] == pytest.approx(PEAK / 25)
