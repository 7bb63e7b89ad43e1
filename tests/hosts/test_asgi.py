"""The application behind ASGI servers: the same bytes as behind granian."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from in_process import in_process, lived
from running import JSON, free_ports, until
from transcript import asks_of, compare, over

from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.asgi import Asgi, application
from skipserve.protocols.messages import MAX_BODY_BYTES

QUESTION = json.dumps({"inputs": [[0.5, -0.25]]}).encode()


@pytest.fixture(scope="module")
def archive(routed_project: tuple[Path, list[str]]) -> Path:
    return routed_project[0] / "model_store" / "small.mar"


@pytest.mark.server
def test_same_bytes_behind_uvicorn(archive: Path, tmp_path: Path, place: Path) -> None:
    port, _ = free_ports()
    log = tmp_path / "log"
    environment = {"SKIPSERVE_MODEL_STORE": str(archive.parent), "TMPDIR": str(place)}
    command = ["uvicorn", "--factory", "skipserve.hosts.asgi:application", "--port", str(port)]
    asks = asks_of("asgi")
    expected = in_process([archive], asks.values())
    assert {one.status for one in expected} == {200, 204, 400, 404, 405, 413, 415}
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, **environment}, stderr=output
        ) as process,
    ):
        try:
            until(lambda: "running on" in log.read_text() or process.poll() is not None)
            assert list(place.glob("skipserve.*")), log.read_text()
            compare(asks, over(port, asks.values()), expected)
        finally:
            process.terminate()
    # In order; newer ones then end by the signal that they got.
    assert process.returncode in (0, -signal.SIGTERM)
    assert not list(place.iterdir())


async def asked(
    app: Asgi, parts: list[dict[str, Any]], **scope: Any
) -> tuple[list[dict[str, Any]], int]:
    """What it sends for a request, and how many messages of it were read."""
    left = iter(parts)
    read, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return next(left)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    base = {"type": "http", "method": "POST", "path": "/predictions/small", "headers": []}
    await app(base | scope, receive, send)
    return sent, read


def body(*parts: bytes) -> list[dict[str, Any]]:
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": i < last}
        for i, part in enumerate(parts)
    ]


def alone(archive: Path, *parts: dict[str, Any], **scope: Any) -> tuple[list[dict[str, Any]], int]:
    async def once() -> tuple[list[dict[str, Any]], int]:
        app = application([archive])
        async with lived(app):
            return await asked(app, list(parts), **scope)

    return asyncio.run(once())


def test_a_body_in_parts_below_a_prefix_with_headers_of_any_case(archive: Path) -> None:
    sent, _ = alone(
        archive,
        *body(QUESTION[:5], b"", QUESTION[5:]),
        path="/api/predictions/small",
        root_path="/api",
        headers=[(b"Content-Type", b"application/json"), (b"X-REQUEST-ID", b"mine")],
    )
    start, content = sent
    headers = dict(start["headers"])
    assert start["status"] == 200
    assert headers[b"x-request-id"] == b"mine"
    assert int(headers[b"content-length"]) == len(content["body"])
    assert len(json.loads(content["body"])["outputs"]) == 1


def test_names_of_headers_are_in_lower_case_as_asgi_asks(archive: Path) -> None:
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -0.25]}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    path = "/v2/models/small/infer"
    (start, _), _ = alone(archive, *body(json.dumps(asked).encode()), path=path)
    names = [name for name, _ in start["headers"]]
    assert start["status"] == 200
    assert b"inference-header-content-length" in names
    assert names == [name.lower() for name in names]


def test_a_body_too_long_is_refused_before_it_is_all_there(archive: Path) -> None:
    part = bytes(MAX_BODY_BYTES // 4)
    sent, read = alone(archive, *body(*[part] * 8), headers=[])
    assert (sent[0]["status"], read) == (413, 5)
    assert json.loads(sent[1]["body"])["error"]["code"] == "too_many_rows"


def test_a_client_that_hangs_up_is_told_nothing(archive: Path) -> None:
    parts = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert alone(archive, *parts) == ([], 2)


def test_a_web_socket_is_closed(archive: Path) -> None:
    assert alone(archive, type="websocket") == ([{"type": "websocket.close"}], 0)


def test_a_server_that_says_nothing_of_its_start_is_told(archive: Path) -> None:
    with pytest.raises(LaunchError, match="uvicorn: --lifespan on"):
        asyncio.run(asked(application([archive]), body(QUESTION)))


def test_a_damaged_archive_fails_the_start_and_leaves_nothing(
    archive: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place))
    damaged = tmp_path / "small.mar"
    damaged.write_bytes(archive.read_bytes()[:-50])

    async def start() -> list[dict[str, Any]]:
        async with lived(application([damaged])) as said:
            return said

    (said,) = asyncio.run(start())
    assert said["type"] == "lifespan.startup.failed"
    assert "damaged" in said["message"]
    assert list(place.iterdir()) == []


def test_without_a_store_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKIPSERVE_MODEL_STORE", raising=False)
    with pytest.raises(ConfigError, match="SKIPSERVE_MODEL_STORE is not set"):
        application()


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (1.0, "rate_limit is for each key; name their file with keys, or with SKIPSERVE_KEYS"),
        (0.0, "rate_limit is 0.0; expected requests a second"),
        (math.inf, "rate_limit is inf; expected requests a second"),
        (math.nan, "rate_limit is nan; expected requests a second"),
    ],
)
def test_a_limit_that_could_not_hold_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, says: str
) -> None:
    monkeypatch.delenv("SKIPSERVE_KEYS", raising=False)
    keys = None
    if "expected" in says:
        keys = tmp_path / "keys"
        keys.write_text("k" * 32)
        keys.chmod(0o600)
    with pytest.raises(ConfigError, match=re.escape(says)):
        application([archive], keys=keys, rate_limit=limit)


def test_an_order_of_the_operator_is_followed_while_it_serves(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is what replicas on many machines share; no command reaches them."""
    store, state = tmp_path / "store", tmp_path / "state"
    store.mkdir()
    order = state / ".router-off" / "small"
    order.parent.mkdir(parents=True)
    shutil.copy(archive, store)
    monkeypatch.setenv("SKIPSERVE_STATE", str(state))

    async def router(client: httpx.AsyncClient) -> str:
        reply = await client.post("/predictions/small", content=QUESTION, headers=JSON)
        answer: str = reply.json()["router"]
        return answer

    async def becomes(client: httpx.AsyncClient, wanted: str) -> None:
        async with asyncio.timeout(30):
            while await router(client) != wanted:
                await asyncio.sleep(0.05)

    async def run() -> None:
        app = application([store / "small.mar"])
        async with lived(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://small") as client:
                assert await router(client) == "on"
                order.touch()
                await becomes(client, "off")
                order.unlink()
                await becomes(client, "on")

    asyncio.run(run())
