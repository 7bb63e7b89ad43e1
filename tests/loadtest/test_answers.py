"""Requests are made of pool rows, and replies are compared with known answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.errors import ConfigError
from skipserve.loadtest.answers import check
from skipserve.loadtest.payloads import Choice, Pool, body, parse_mix, with_router_off

ROWS = [("[0.1,0.2]",), ("[0.3,0.4]",), ("[0.5,0.6]",)]
POOL = Pool("m", 4, 2, ROWS, [0, 1, 1], {"default": [0, 0, 1]})


def reply(labels, router="off", depth_run=4, **changes) -> bytes:
    outputs = [
        {
            "label": label,
            "probabilities": [0.9 - 0.8 * label, 0.1 + 0.8 * label],
            "depth_run": depth_run,
        }
        | changes
        for label in labels
    ]
    return json.dumps({"outputs": outputs, "model": "m", "depth": 4, "router": router}).encode()


@given(st.integers(0, 10), st.integers(1, 7), st.sampled_from(["default", "on", "off", "0.02"]))
def test_a_request_holds_the_rows_in_turn(first, rows, router):
    sent = json.loads(body(POOL, Choice("m", router, rows), first))
    # Named also where it is the only one: a model of pictures reads a bare list as pixels.
    assert sent.pop("inputs") == {
        "inputs": [json.loads(POOL.rows[(first + offset) % 3][0]) for offset in range(rows)]
    }
    asked = {"on": "on", "off": "off", "0.02": {"risk": 0.02}}
    assert sent == ({} if router == "default" else {"parameters": {"router": asked[router]}})


def test_a_request_of_several_inputs_names_them():
    pool = Pool("m", 4, 2, [("[1,2]", "[1,0]"), ("[3,4]", "[1,1]")], [0, 1], {}, ("ids", "a mask"))
    sent = json.loads(body(pool, Choice("m", "on", 3), 1))
    assert sent["inputs"] == {"ids": [[3, 4], [1, 2], [3, 4]], "a mask": [[1, 1], [1, 0], [1, 1]]}
    assert sent["parameters"] == {"router": "on"}


def test_a_right_reply_at_full_depth():
    found = check(POOL, Choice("m", rows=2), 2, reply([1, 0]))
    assert (found.failure, found.routed_rows) == ("", 0)


def test_another_label_is_wrong_at_full_depth_and_disagrees_when_routed():
    assert "wrong answer" in check(POOL, Choice("m"), 1, reply([0])).failure
    found = check(POOL, Choice("m"), 1, reply([0], "on", 2))
    assert found.failure == ""
    assert (found.routed_rows, found.disagreements, found.unforeseen) == (1, 1, 0)
    assert found.blocks_run == 2
    # Row 0 has label 0 both at full depth and at the thresholds.
    found = check(POOL, Choice("m"), 0, reply([1], "on", 2))
    assert (found.disagreements, found.unforeseen) == (1, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "malformed"),
        (b"<html>", "malformed"),
        (b"[]", "malformed"),
        (reply([0, 0]), "2 answers for 1 rows"),
        (reply([0], probabilities=[1.0]), "1 probabilities for 2 classes"),
        (reply([0], probabilities=[0.9, 0.3]), "do not add up"),
        (reply([0], probabilities=[1.2, -0.2]), "not between 0 and 1"),
        (reply([0], probabilities=[None, 1]), "malformed"),
        (reply([0], probabilities=[0.1, 0.9]), "not the most probable"),
        (reply([0], label=7), "not the most probable"),
        (reply([0], "on", 5), "5 of 4 blocks"),
        (reply([0], "off", 3), "not every block was run"),
        (b'{"outputs":[{"label":0,"probabilities":[NaN,1],"depth_run":4}],"router":"off"}', "mal"),
    ],
)
def test_a_wrong_reply_is_a_failure(content, says):
    assert says in check(POOL, Choice("m"), 0, content).failure


def test_a_router_that_is_on_though_asked_off_is_a_failure():
    assert "asked for off" in check(POOL, Choice("m", "off"), 0, reply([0], "on")).failure


def test_a_mix_is_every_combination_by_weight():
    mix = parse_mix("a=3,b=1", "on=0.5,off=0.5", "1,8=2")
    assert len(mix) == 8
    assert mix[0] == Choice("a", "on", 1, 1.5)
    assert mix[-1] == Choice("b", "off", 8, 1.0)
    assert {choice.router for choice in with_router_off(mix)} == {"off"}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [("1.1%", "0.011"), ("0.005%", "0.00005"), ("0.01234567", "0.01234567"), ("2%", "0.02")],
)
def test_a_risk_of_a_mix_is_sent_as_the_number_that_was_asked_for(asked, sent):
    (choice,) = parse_mix("m", asked, "1")
    assert choice.router == sent
    assert f'"risk":{sent}' in body(POOL, choice, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "on", "1"), "the name is empty"),
        (("a", "maybe", "1"), "expected default, on, off or a risk"),
        (("a", "1.5", "1"), "expected default, on, off or a risk"),
        (("a", "on", "0"), "whole number of rows"),
        (("a", "on", "1.5"), "whole number of rows"),
        (("a=0", "on", "1"), "weight must be a positive number"),
        (("a=x", "on", "1"), "model: 'a=x' is wrong"),
        (("a=nan", "on", "1"), "weight must be a positive number"),
    ],
)
def test_a_wrong_mix_is_an_error(arguments, says):
    with pytest.raises(ConfigError, match=says):
        parse_mix(*arguments)
