"""Error types of text-embeddings-inference and of OpenAI: clients act on them."""

from __future__ import annotations

import json

import pytest

from skipserve.errors import InputError
from skipserve.protocols.compatible import refuse
from skipserve.protocols.messages import STATUSES

# What a client may ask again is Overloaded.
TEI = {
    "internal": "Backend",
    "overloaded": "Overloaded",
    "waited_too_long": "Overloaded",
    "deadline_exceeded": "Overloaded",
    "too_often": "Overloaded",
    "too_slow": "Overloaded",
}
OPENAI = {
    "no_key": "authentication_error",
    "wrong_key": "authentication_error",
    "too_often": "rate_limit_error",
    "internal": "server_error",
    "overloaded": "server_error",
    "waited_too_long": "server_error",
    "deadline_exceeded": "server_error",
}


@pytest.mark.parametrize("code", [*STATUSES, "wrong_shape"])
def test_an_error_has_its_familys_type(code: str) -> None:
    error = InputError(code, "why")
    status = STATUSES.get(code, 400)
    tei = refuse("tei", error)
    assert (tei.status, json.loads(tei.body)["error_type"]) == (status, TEI.get(code, "Validation"))
    told = refuse("openai", error)
    assert told.status == status
    assert json.loads(told.body)["error"]["type"] == OPENAI.get(code, "invalid_request_error")
