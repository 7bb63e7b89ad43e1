"""Texts that are refused: errors name the row, and harm no neighbour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from small_project import REORDERED
from text_requests import (
    IS_JSON,
    SENT,
    ask,
    by_column,
    probabilities,
    tensor,
    told,
)
from tokenizing import LONGEST

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.preprocessing.text import LONGEST_TEXT, Texts
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.text_bound import LARGEST_REQUEST
from skipserve.runtime.engine import Engine
from skipserve.runtime.inputs import Inputs
from skipserve.runtime.rows import Rows
from skipserve.service.service import Service

BAD: list[tuple[list[Any], int, str, str]] = [
    (["a", 3], 1, "wrong_type", "row 1 is a number; expected a text, or a pair of texts"),
    (["a", None, 3], 1, "wrong_type", "row 1 is null"),
    ([["a", "b", "c"]], 0, "wrong_type", "row 0 is a list of 3"),
    ([["a", 2]], 0, "wrong_type", "row 0 is a list of 2"),
    (["a", {"text_pair": "b"}], 1, "wrong_type", "an object with 'text_pair'"),
    ([{"text": None, "text_pair": "b"}], 0, "wrong_type", "an object with 'text', 'text_pair'"),
    (["a", {"text": "b", "title": "c"}], 1, "wrong_type", "an object with 'text', 'title'"),
    (
        ["a", {str(i): 0 for i in range(9)}],
        1,
        "wrong_type",
        "'0', '1', '2', '3', '4' and 4 more; expec",
    ),
    (["a", {"x" * 9_999: 0}], 1, "wrong_type", f"an object with '{'x' * 39}…; expected a text"),
    (["a", "b" * (LONGEST_TEXT + 1)], 1, "too_long", "more than the 262,144 that are read"),
    (["a", ["b", "b" * (LONGEST_TEXT + 1)]], 1, "too_long", "row 1 has 262,145 characters"),
]


@pytest.mark.parametrize(("values", "row", "code", "says"), BAD)
def test_a_bad_value_names_its_row_and_harms_no_neighbour(
    service: Service, values: list[Any], row: int, code: str, says: str
) -> None:
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    bad = RawRequest(json.dumps({"inputs": values}).encode(), IS_JSON)
    first, reply, last = service.answer([good, bad, good])
    assert told(first)["outputs"] == told(last)["outputs"]
    alone = probabilities(told(ask(service, {"inputs": SENT}))["outputs"])
    np.testing.assert_allclose(probabilities(told(first)["outputs"]), alone, atol=REORDERED)
    error = json.loads(reply.body)["error"]
    assert reply.status == (413 if code == "too_long" else 400)
    assert (error["code"], error["row"]) == (code, row)
    assert says in error["message"]
    for refused in (ask(service, {"instances": values}), by_column(service, values)):
        assert f"[{code}]" in json.loads(refused.body)["error"]


EIGHTH = LARGEST_REQUEST // 8


@pytest.mark.parametrize("value", ["a" * EIGHTH, ["a" * (EIGHTH - 2), "éé"]], ids=["text", "pair"])
def test_the_texts_of_a_request_have_a_bound_together(service: Service, value: Any) -> None:
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    most = RawRequest(json.dumps({"inputs": [value] * 8}).encode(), IS_JSON)
    more = [*[value] * 7, "a" * (EIGHTH + 1)]
    large = RawRequest(json.dumps({"inputs": more}).encode(), IS_JSON)
    first, reply, last = service.answer([good, large, most])
    assert (first.status, reply.status, last.status) == (200, 413, 200)
    error = json.loads(reply.body)["error"]
    assert error["code"] == "too_long"
    assert error["message"].startswith("the texts have more than 2,000,000 characters together")
    assert by_column(service, more).status == 413


def test_more_texts_than_a_request_may_have_are_read_from_a_file(prepare: Texts) -> None:
    made = prepare(["a " * 100_000] * (LARGEST_REQUEST // 200_000 + 1))
    assert made["input_ids"].shape == (11, LONGEST)


class RunsOut(Inputs):
    """Has no memory left for one text."""

    def prepare(self, values: Sequence[object]) -> Rows:
        if "too much" in values:
            raise MemoryError("0xdead")
        return super().prepare(values)


def test_a_value_that_preprocessing_fails_on_harms_no_neighbour(
    taking: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(taking, provider="cpu")
    engine.inputs = RunsOut(taking)
    service = Service(engine, ServingConfig(max_rows=8))
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    bad = RawRequest(json.dumps({"inputs": ["a", "too much"]}).encode(), IS_JSON, id="the bad one")
    first, reply, last = service.answer([good, bad, good])
    assert told(first)["outputs"] == told(last)["outputs"]
    assert len(told(first)["outputs"]) == len(SENT)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (500, "internal")
    assert b"0xdead" not in bytes(reply.body)
    (record,) = [one for one in caplog.records if one.exc_info]
    assert record.__dict__["fields"] == {"request_id": "the bad one"}
    assert "0xdead" in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": []}, 400, "inputs holds no row"),
        ({"inputs": "great"}, 400, '"inputs" must be a list; each row is a text'),
        ({"inputs": ["a"] * 9}, 413, "at most 8"),
        ({"inputs": ["a"], "input": 3}, 400, "unknown field"),
        ({"inputs": {"attention_mask": [[1]]}}, 400, "'input_ids' of masked is missing"),
        (tensor([], 0), 400, "no row"),
        (tensor(["a"], 2), 400, "a list of 2 strings"),
        (tensor(["a", 3], 2), 400, "expected strings"),
        (tensor(["a"] * 3, 1, 3), 400, "expected [rows] or [rows, 1] or [rows, 2]"),
        (tensor(["a"] * 9, 9), 413, "at most 8"),
    ],
)
def test_a_request_of_another_shape_is_refused(
    service: Service, body: dict[str, Any], status: int, says: str
) -> None:
    reply = ask(service, body)
    assert reply.status == status
    assert says in json.dumps(json.loads(reply.body), ensure_ascii=False).replace('\\"', '"')


def test_bytes_that_are_no_utf8_are_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="row 1 is no text in UTF-8") as refused:
        engine.inputs.prepare([b"fine", b"\xff"])
    assert refused.value.row == 1
    with pytest.raises(InputError, match="row 0 is no text in UTF-8"):
        engine.inputs.prepare(["\ud800"])


def test_many_texts_are_numbered_on(engine: Engine) -> None:
    with pytest.raises(InputError, match="row 102 is null") as caught:
        engine.inputs.prepare_many(["a", "b", None], 100)
    assert caught.value.row == 102
