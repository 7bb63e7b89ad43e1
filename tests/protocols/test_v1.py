"""The V1 protocol: requests of TensorFlow Serving's and KServe's clients, and replies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from signatures import spec, taking

import skipserve
from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.v1 import V1Protocol, is_v1_request
from skipserve.runtime.engine import Engine
from skipserve.tasks import Classify

TASK = Classify(classes=2)

MAX_ROWS = 8


@pytest.fixture(scope="module")
def protocol(artifact: Artifact) -> V1Protocol:
    return V1Protocol(artifact.manifest, MAX_ROWS)


def request(instances: object, **fields: object) -> RawRequest:
    return RawRequest(json.dumps({"instances": instances, **fields}).encode(), {})


@pytest.mark.parametrize(
    ("body", "v1"),
    [
        (b'{"instances": [[1, 2]]}', True),
        (b'{"signature_name": "serving_default", "instances" : 5}', True),
        (b'{"signature_name": "\\"instances\\"", "instances": 5}', True),
        (b'{"signature_name": "instances"}', False),
        (b'{"inputs": [[1, 2]]}', False),
        (b"", False),
        (None, False),
    ],
)
def test_a_request_is_told_by_its_content(body: bytes | None, v1: bool) -> None:
    assert is_v1_request(RawRequest(body, {})) is v1


@pytest.mark.parametrize(
    ("instances", "fields"),
    [
        ([[1, 2], [3, 4]], {}),
        ([{"inputs": [1, 2]}, {"inputs": [3, 4]}], {}),
        ([[1, 2], {"inputs": [3, 4]}], {}),
        ([[1, 2], [3, 4]], {"signature_name": "serving_default", "parameters": {"router": "off"}}),
        ([[1, 2], [3, 4]], {"signature_name": None, "parameters": None}),
    ],
    ids=["rows", "named", "both", "with all fields", "with nulls"],
)
def test_instances_are_rows_or_name_their_input(
    protocol: V1Protocol, instances: list[object], fields: dict[str, object]
) -> None:
    rows = protocol.decode(request(instances, **fields)).rows
    assert rows["inputs"].tolist() == [[1, 2], [3, 4]]


def test_the_reply_holds_a_prediction_for_each_instance_and_nothing_else(
    protocol: V1Protocol, engine: Engine, rows: NDArray[np.float32]
) -> None:
    prediction = engine.predict(rows[:3])
    reply = protocol.decode(request(rows[:3].tolist())).encode(
        answer_of(prediction, engine.off, TASK)
    )
    (predictions,) = json.loads(reply.body).values()
    assert json.loads(reply.body).keys() == {"predictions"}
    assert [one["label"] for one in predictions] == prediction.labels.tolist()
    assert [one["depth_run"] for one in predictions] == [4, 4, 4]
    probabilities = np.float32([one["probabilities"] for one in predictions])
    np.testing.assert_array_equal(probabilities, prediction.answers)
    assert "held_back" not in predictions[0]


def test_a_router_is_asked_for_as_in_the_native_protocol(routed_project) -> None:
    engine = skipserve.open(routed_project[0] / "artifacts" / "small", provider="cpu")
    parsed = V1Protocol(engine.manifest, MAX_ROWS).decode(
        request([[1, 2]], parameters={"router": {"risk": 0.05}})
    )
    setting = engine.setting(parsed.router.risk)
    reply = parsed.encode(answer_of(engine.predict([[1, 2]], risk=0.05), setting, TASK))
    assert "held_back" in json.loads(reply.body)["predictions"][0]


ROWS = '"instances" must be a list of rows of 2 numbers each'
BAD_REQUESTS = {
    "row too short": (request([[1, 2], [3]]), "wrong_shape", 400, "$.instances[1]"),
    "no rows": (request([]), "empty", 400, "instances holds no row"),
    "not a list": (request(5), "wrong_shape", 400, ROWS),
    "another input": (request([{"x": [1, 2]}]), "unknown_input", 400, "small takes 'inputs'"),
    "a named row too long": (request([{"inputs": [1, 2, 3]}]), "wrong_shape", 400, ROWS),
    "a string among numbers": (request([[1, "2"]]), "wrong_type", 400, ROWS),
    "too many rows": (request([[1, 2]] * 9), "too_many_rows", 413, "at most 8"),
    "inputs besides": (request([[1, 2]], inputs=[[1, 2]]), "unknown_field", 400, "`inputs`"),
    "another signature": (
        request([[1, 2]], signature_name="x"),
        "invalid_parameter",
        400,
        "'x' - at `$.signature_name`",
    ),
    "a router of none": (
        request([[1, 2]], parameters={"router": "on"}),
        "no_router",
        400,
        "has no router",
    ),
    "a form": (RawRequest(None, {}), "unsupported_media_type", 415, "expected application/json"),
}


@pytest.mark.parametrize(
    ("request_", "code", "status", "says"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_a_bad_request_is_told_what_was_expected_in_the_protocols_own_shape(
    protocol: V1Protocol, request_: RawRequest, code: str, status: int, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        protocol.decode(request_)
    reply = protocol.refuse(caught.value)
    assert (caught.value.code, reply.status) == (code, status)
    assert json.loads(reply.body) == {"error": f"[{code}] {caught.value.message}"}
    assert says in caught.value.message


def test_an_instance_holds_every_input_of_several(artifact: Artifact) -> None:
    inputs = spec("ids", "int64", "length"), spec("weight", "float32")
    protocol = V1Protocol(taking(artifact, *inputs), MAX_ROWS)
    rows = protocol.decode(
        request([{"ids": [1, 2], "weight": 0.5}, {"weight": 1, "ids": [3, 4]}])
    ).rows
    assert {name: one.tolist() for name, one in rows.items()} == {
        "ids": [[1, 2], [3, 4]],
        "weight": [0.5, 1.0],
    }
    for instances, code, row, says in (
        ([[1, 2]], "wrong_type", 0, '"ids": rows of length whole numbers'),
        ([{"ids": [1], "weight": 1}, {"ids": [1]}], "missing_input", 1, "'weight' of small"),
        ([{"ids": [1], "weight": [1]}], "wrong_shape", 0, '"weight" must be a list of numbers'),
        ([{"ids": [1], "weight": 1}, {"ids": [1, 2], "weight": 1}], "wrong_shape", 1, "length 2"),
    ):
        with pytest.raises(InputError) as caught:
            protocol.decode(request(instances))
        assert (caught.value.code, caught.value.row) == (code, row)
        assert says in caught.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)
rows = st.lists(st.floats(), max_size=3)


@given(
    instances=st.lists(rows | st.fixed_dictionaries({"inputs": rows}) | json_values) | json_values,
    fields=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("signature_name", "parameters"), json_values)
    ),
)
def test_no_request_raises_anything_but_an_input_error(
    protocol: V1Protocol, engine: Engine, instances: object, fields: dict[str, object]
) -> None:
    try:
        checked = engine.check(protocol.decode(request(instances, **fields)).rows)
    except InputError as error:
        assert protocol.refuse(error).body
    else:
        assert checked.shapes == ((2,),)
