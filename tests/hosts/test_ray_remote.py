"""What clients are told of a replica that Ray does not reach, without a cluster."""

from __future__ import annotations

import asyncio
import json
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from skipserve.protocols.messages import RawRequest, Reply

with warnings.catch_warnings():  # of pydantic, about Ray's own classes
    warnings.simplefilter("ignore")
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError

    from skipserve.hosts.ray.remote import Remote

FULL = BackPressureError(num_queued_requests=2, max_queued_requests=2)


class Handle:
    """A handle whose requests all end with one error."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.answer = SimpleNamespace(remote=self._answer)

    async def _answer(self, request: RawRequest) -> Reply:
        raise self._error


def told(error: Exception, protocol: str) -> tuple[int, Any]:
    remote: Any = Remote(Handle(error))  # type: ignore[arg-type]
    reply = asyncio.run(remote.answer(RawRequest(b"{}", {}, "mine", protocol)))
    assert reply.headers["x-request-id"] == "mine"
    return reply.status, json.loads(reply.body)


@pytest.mark.parametrize("protocol", ["tei.embed", "tei.predict", "tei.rerank"])
def test_text_embeddings_inference_is_told_by_its_error_type(protocol: str) -> None:
    status, body = told(FULL, protocol)
    assert (status, body["error_type"]) == (503, "Overloaded")
    assert "Ask again later" in body["error"]
    status, body = told(RayActorError(), protocol)
    assert (status, body["error_type"]) == (500, "Backend")


@pytest.mark.parametrize("protocol", ["openai.embeddings", "vllm.score", "vllm.rerank"])
def test_openais_clients_are_told_by_type_and_code(protocol: str) -> None:
    status, body = told(FULL, protocol)
    assert (status, body["error"]["type"]) == (503, "server_error")
    assert body["error"]["code"] == "overloaded"
    status, body = told(RayActorError(), protocol)
    assert (status, body["error"]["code"]) == (500, "internal")


@pytest.mark.parametrize(("protocol", "text"), [("oip", True), ("v1", True), ("native", False)])
def test_the_other_protocols_are_told_as_ever(protocol: str, text: bool) -> None:
    status, body = told(FULL, protocol)
    assert status == 503
    if text:
        assert body["error"].startswith("[overloaded]")
    else:
        assert body["error"]["code"] == "overloaded"
