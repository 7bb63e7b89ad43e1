"""What clients send is quoted in errors, but never without a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import LONGEST_MESSAGE, InputError
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service

LONG = "x" * 100_000
TENSOR = {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("protocol", "body", "expected"),
    [
        ("native", {"inputs": [[0.5, 0.5]], LONG: 1}, 'the fields are "inputs"'),
        ("native", {"inputs": {LONG: [[0.5, 0.5]]}}, "takes 'inputs'"),
        ("native", {"inputs": [[0.5, 0.5]], "parameters": {"router": LONG}}, '"on", "off" or'),
        ("v1", {"instances": [{LONG: [0.5, 0.5]}]}, "'inputs'"),
        ("oip", {"inputs": [TENSOR | {"datatype": LONG}]}, "expected one of FP16"),
        ("oip", {"inputs": [TENSOR | {"name": LONG}]}, "named 'inputs'"),
        ("oip", {"inputs": [TENSOR], "parameters": {"router": LONG}}, 'expected "on", "off" or a'),
        ("oip", {"inputs": [TENSOR], "outputs": [{"name": LONG}]}, "only label, probabilities"),
    ],
)
def test_an_error_is_short_whatever_it_quotes(
    engine: Engine, protocol: str, body: dict[str, Any], expected: str
) -> None:
    service = Service(engine, ServingConfig(metrics=False))
    request = RawRequest(json.dumps(body).encode(), {}, protocol=protocol)
    (reply,) = service.answer([request])
    assert reply.status == 400
    assert len(reply.body) < 2 * LONGEST_MESSAGE
    error = json.loads(reply.body)["error"]
    assert expected in (error if isinstance(error, str) else error["message"])


def test_a_message_is_cut_only_where_it_is_too_long() -> None:
    whole = InputError("wrong_type", "x" * LONGEST_MESSAGE)
    assert whole.message == str(whole) == "x" * LONGEST_MESSAGE
    cut = InputError("wrong_type", "x" * LONGEST_MESSAGE + "y")
    assert cut.message == "x" * (LONGEST_MESSAGE - 1) + "…"
