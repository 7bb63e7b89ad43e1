"""Heads learn what full depth answers, without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skipserve.routing.heads import fit_head, linked

pytestmark = pytest.mark.slow

CLASSES = 3


def answer(head, features):
    x = features
    for i, (weight, bias) in enumerate(head.layers):
        x = (np.maximum(x, 0) if i else x) @ weight + bias
    return x


def task(count, seed):
    """Features far from scaled, and probabilities that no linear head can tell."""
    x = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    logits = np.stack([4 * np.abs(x[:, 0]), 4 * np.abs(x[:, 1]), 2 + x[:, 2]], axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scale, shift = np.float32([1e-3, 1, 50, 1, 1, 7]), np.float32([0, 9, -300, 0, 1, 5])
    return x * scale + shift, probabilities.astype(np.float32)


@pytest.mark.parametrize(("hidden", "least"), [(64, 0.93), (0, 0.4)])
def test_a_head_agrees_with_full_depth_on_rows_it_has_not_seen(hidden, least):
    head = fit_head(*task(4_000, 0), hidden)
    assert head.hidden == hidden
    features, targets = task(2_000, 1)
    agrees = (answer(head, features).argmax(axis=1) == targets.argmax(axis=1)).mean()
    assert agrees >= least
    if hidden == 0:
        assert agrees < 0.8


def test_few_rows_are_enough_of_steps():
    features, targets = task(100, 0)
    head = fit_head(features, targets, 64)
    assert (answer(head, features).argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9


def test_the_same_rows_give_the_same_numbers_and_torch_is_left_as_it_was():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (fit_head(*task(300, 0), 8, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for one, same, differs in zip(first.layers, again.layers, other.layers, strict=True):
        np.testing.assert_array_equal(one[0], same[0])
        assert not np.array_equal(one[0], differs[0])


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_rows_that_overflow_teach_nothing(value):
    features, targets = task(1_000, 0)
    features[::50, 3] = value
    head = fit_head(features, targets, 32)
    assert all(np.isfinite(numbers).all() for layer in head.layers for numbers in layer)
    fine, expected = task(1_000, 1)
    assert (answer(head, fine).argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.8


def test_a_feature_that_never_varies_does_no_harm():
    features, targets = task(500, 0)
    features[:, 4] = 5
    head = fit_head(features, targets, 8)
    assert all(np.isfinite(numbers).all() for layer in head.layers for numbers in layer)


def test_numbers_are_hit_whatever_their_size():
    random = np.random.default_rng(0)
    x = random.standard_normal((2_000, 6)).astype(np.float32)
    y = (1_000 + 50 * x @ random.standard_normal((6, 2))).astype(np.float32)
    head = fit_head(x, y, 0, link="identity")
    assert np.abs(head(x) - y).max() < 0.05 * y.std()
    directions = (y - 1_000) / np.linalg.norm(y - 1_000, axis=1, keepdims=True)
    head = fit_head(x, directions, 32, link="unit")
    cosines = (linked("unit", head(x)) * directions).sum(axis=1)
    assert (cosines >= 0.99).mean() > 0.95
