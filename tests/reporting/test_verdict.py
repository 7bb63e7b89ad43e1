"""What blocks do, and the verdict on them, which can say no."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from skipserve.networks import build_network, parse_network
from skipserve.reporting.readings import measure_blocks, read_network
from skipserve.reporting.verdict import Times, hindrance, prospect, sentence
from skipserve.routing.judge import ByDepth

DECISION_S = 8e-6
BLOCK_S = 100e-6  # many decisions


def network(**changes):
    config = {"family": "mlp", "inputs": [2], "classes": 3, "depth": 4, "width": 8, **changes}
    torch.manual_seed(0)
    return build_network(parse_network(config)).eval()


def readings(*rows_of_labels, blocks=None):
    labels = np.array(rows_of_labels)
    at = np.array(blocks or range(1, labels.shape[1] + 1))
    return ByDepth(at, labels == labels[:, -1:])


@pytest.mark.parametrize("changes", [{}, {"connection": "gated"}, {"norm": "pre"}])
def test_a_reading_is_the_answer_of_the_network_cut_there(changes):
    whole, inputs = network(**changes), torch.randn(50, 2)
    found = read_network(whole, inputs.numpy())
    assert found.blocks.tolist() == [0, 1, 2, 3, 4]
    for at, blocks in enumerate(found.blocks):
        stream = whole.stem(whole.scaling(inputs))
        for block in whole.blocks[:blocks]:
            stream = block(stream)
        assert (found.answers[:, at].argmax(1) == whole.answer(stream).argmax(dim=1).numpy()).all()


def test_the_oracle_stops_at_the_first_answer_that_is_that_of_full_depth():
    found = readings([1, 0, 2, 2], [2, 2, 2, 2], [2, 0, 2, 2], [0, 1, 0, 2])
    assert found.oracle.tolist() == [3, 1, 1, 4]


def test_what_blocks_do_is_what_the_definitions_say():
    whole, inputs = network(), torch.randn(30, 2)
    found = measure_blocks(whole, inputs.numpy())
    with torch.no_grad():
        streams = np.stack([stream.double().numpy() for stream in whole.streams(inputs)])
    length = np.linalg.norm(streams, axis=2)
    np.testing.assert_allclose(found.norm, length.mean(axis=1), rtol=1e-6)
    change = np.linalg.norm(np.diff(streams, axis=0), axis=2) / length[:-1]
    np.testing.assert_allclose(found.update, change.mean(axis=1), rtol=1e-6)
    cosine = (streams[1:] * streams[:-1]).sum(axis=2) / length[1:] / length[:-1]
    np.testing.assert_allclose(found.influence, (1 - cosine).mean(axis=1), rtol=1e-5, atol=1e-9)


def test_a_block_that_does_nothing_has_no_influence():
    whole = network()
    torch.nn.init.zeros_(whole.blocks[1].inner[0].weight)
    torch.nn.init.zeros_(whole.blocks[1].inner[0].bias)
    found = measure_blocks(whole, np.random.default_rng(0).normal(size=(20, 2)).astype("f4"))
    assert found.update[1] == 0
    assert found.influence[1] == pytest.approx(0, abs=1e-12)
    assert found.norm[2] == found.norm[1]
    assert (found.update[[0, 2, 3]] > 0).all()


# 400 rows: at 4 blocks most answers stand, and at 9 all; a tenth of them needs those 9.
GAIN = readings(*[[0] * 12] * 200, *[[1] * 12] * 160, *[[0] * 8 + [1] * 4] * 40)
FULL = np.array([0] * 200 + [1] * 200)
SAME = readings(*[[0, 1]] * 400)
# All but one row stand after one block: a fixed depth has everything.
NO_GAIN = readings(*[[0] * 12] * 200, *[[1] * 12] * 199, [0, *[1] * 11])


def judged(found, block_s=BLOCK_S):
    return prospect(found, range(1, 12), 0.01, Times(block_s, DECISION_S))


def test_a_gain_is_worth_going_on_for():
    found = judged(GAIN)
    assert (found.fixed, found.fixed_disagreement) == (9, 0)
    assert found.oracle == found.staged == pytest.approx(0.9 * 1 + 0.1 * 9)
    assert found.asked == pytest.approx(found.oracle)
    assert found.gain == pytest.approx((9 - 1.8 - 1.8 * DECISION_S / BLOCK_S) / 12)
    said = sentence(found)
    assert "at most 85% of the blocks (the oracle runs 1.8 of 12" in said
    assert "stopping every row after block 9 saves 25% already" in said
    assert "Going on is worth it" in said


def test_no_gain_beyond_a_fixed_depth_is_said():
    said = sentence(judged(NO_GAIN))
    assert "stopping every row after block 1 saves 92% already and changes 0.25%" in said
    assert "Going on is not worth it" in said
    assert "cut the network off after block 1 instead" in said


def test_blocks_shorter_than_a_decision_are_not_worth_it():
    said = sentence(judged(GAIN, block_s=1e-6))
    assert "Going on is not worth it: a block takes 1 µs" in said
    assert f"a decision about {DECISION_S * 1e6:.0f} µs" in said


def test_a_depth_of_no_block_at_all_is_said_in_words():
    stem = readings(*[[0, 0, 0]] * 200, *[[1, 1, 1]] * 200, blocks=[0, 1, 2])
    found = prospect(stem, [0, 1], 0.01, Times(BLOCK_S, DECISION_S))
    assert (found.fixed, found.oracle, found.asked) == (0, 0, 1)
    assert "stopping every row before the first block saves 100% already" in sentence(found)


def test_a_network_whose_answer_needs_every_block_is_not_worth_it():
    late = readings(*[[0] * 11 + [1]] * 200, *[[1] * 11 + [0]] * 200)
    said = sentence(judged(late))
    assert "no fixed depth saves anything within a risk of 1%" in said
    assert "Going on is not worth it" in said
    assert "train it to exit early first" in said


def test_a_fixed_depth_counts_only_while_all_deeper_ones_hold():
    # After block 2 all is right by luck, after block 3 it is not.
    lucky = readings(*[[0, 0, 1, 0]] * 200, *[[1, 1, 0, 1]] * 200)
    assert prospect(lucky, [1, 2, 3], 0.01, Times(BLOCK_S, DECISION_S)).fixed == 4


@pytest.mark.parametrize(
    ("found", "labels", "skippable", "says"),
    [
        (GAIN, None, False, "No: a plain network has nothing to skip"),
        (SAME, None, True, "No: the network gives all 400 rows the same"),
        (GAIN, np.zeros(400, dtype=int), True, "no better than always naming the largest class"),
        (readings([0, 1], [1, 0]), None, True, "These 2 rows cannot tell"),
        (GAIN, None, True, ""),
        (GAIN, FULL, True, ""),
    ],
)
def test_where_the_question_does_not_arise_that_is_said(found, labels, skippable, says):
    if labels is not None:
        found = replace(found, right=np.repeat((labels == FULL)[:, None], 12, axis=1))
    said = hindrance(found, labels, 0.01, skippable, one_answer=found is SAME)
    assert said.startswith(says) if says.startswith(("No", "These")) else says in said
    assert bool(said) == bool(says)
