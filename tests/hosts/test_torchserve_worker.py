"""TorchServe's seams: the reader put into its worker, and the handler, with TorchServe's own parts.

A real TorchServe is started in test_serve.py.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import ts
from hypothesis import given
from hypothesis import strategies as st
from ts import async_service
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ArtifactError, ConfigError
from skipserve.hosts.torchserve import worker as torchserve_worker
from skipserve.hosts.torchserve.worker import BUFFER_BYTES, BufferedReader
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.runtime.engine import Engine

# --- the reader ---


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What the frontend writes to and what the worker reads from."""
    frontend, worker = socket.socketpair()
    with frontend, worker:
        yield frontend, worker


class Trickle:
    """A connection on which each ``recv`` finds just the next piece, as a slow network gives it."""

    def __init__(self, frontend: socket.socket, worker: socket.socket, pieces: list[bytes]) -> None:
        self._frontend, self._worker, self._pieces = frontend, worker, pieces

    def recv(self, length: int) -> bytes:
        if self._pieces:
            self._frontend.sendall(self._pieces.pop(0))
        else:
            self._frontend.close()
        return self._worker.recv(length)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(content) + 1) for place in places}), len(content)]
    pieces = (content[a:b] for a, b in pairwise(bounds))
    return [piece for piece in pieces if piece]


@given(
    messages=st.lists(st.binary(max_size=40), max_size=12),
    places=st.lists(st.integers(0, 500), max_size=20),
)
def test_messages_are_whole_wherever_they_were_cut(
    messages: list[bytes], places: list[int]
) -> None:
    with connection() as (frontend, worker):
        trickle = Trickle(frontend, worker, cut(b"".join(messages), places))
        reader = BufferedReader()
        assert [reader.read(trickle, len(message)) for message in messages] == messages
        with pytest.raises(SystemExit):
            reader.read(trickle, 1)


@pytest.mark.parametrize("size", [BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5_000_000])
def test_a_message_larger_than_the_buffer_is_whole_and_so_is_the_next(size: int) -> None:
    content = np.random.default_rng(0).bytes(size)
    with connection() as (frontend, worker):
        sender = threading.Thread(target=frontend.sendall, args=(b"head" + content + b"tail",))
        sender.start()
        reader = BufferedReader()
        assert reader.read(worker, 4) == b"head"
        assert reader.read(worker, size) == content
        assert reader.read(worker, 4) == b"tail"
        sender.join()


@pytest.mark.parametrize("sent", [b"", b"half"])
def test_the_worker_ends_well_when_the_frontend_is_gone(sent: bytes) -> None:
    with connection() as (frontend, worker):
        frontend.sendall(sent)
        frontend.close()
        with pytest.raises(SystemExit) as caught:
            BufferedReader().read(worker, 8)
        assert caught.value.code == 0


def test_nothing_is_asked_of_the_socket_for_nothing() -> None:
    with connection() as (_, worker):
        worker.settimeout(0)
        assert BufferedReader().read(worker, 0) == b""


def test_what_was_read_is_the_callers_to_keep_and_change() -> None:
    with connection() as (frontend, worker):
        frontend.sendall(b"onetwo")
        reader = BufferedReader()
        one = reader.read(worker, 3)
        one[:] = b"___"
        assert reader.read(worker, 3) == b"two"
        assert one == b"___"


def test_work_that_was_put_off_is_done_before_the_next_wait_and_not_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []
    with connection() as (frontend, worker):
        frontend.sendall(b"onetwo")
        reader = BufferedReader()
        reader.read(worker, 3)
        reader.when_idle(lambda: done.append("first"))
        reader.when_idle(lambda: [][0])
        reader.when_idle(lambda: done.append("last"))
        assert reader.read(worker, 3) == b"two"
        assert done == []
        frontend.sendall(b"more")
        assert reader.read(worker, 4) == b"more"
        assert done == ["first", "last"]
        assert "IndexError" in caplog.text
        frontend.sendall(b"more")
        reader.read(worker, 4)
        assert done == ["first", "last"]


# --- the patch ---


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytearray]:
    """TorchServe's reader, put back after the test."""
    reader: Callable[..., bytearray] = otf_message_handler._retrieve_buffer
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", reader)
    batch = otf_message_handler._retrieve_inference_msg
    monkeypatch.setattr(otf_message_handler, "_retrieve_inference_msg", batch)
    monkeypatch.setattr(async_service.AsyncService, "run", async_service.AsyncService.run)
    return reader


JSON_TYPE = b"application/json"


def field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def inference_message(*bodies: bytes) -> bytes:
    """A batch as TorchServe's frontend encodes it, one header and one body a request."""
    end = struct.pack("!i", -1)
    requests = (
        field(b"id%d" % i)
        + (field(b"content-type") + field(b"application/json") + end)
        + (field(b"body") + field(b"application/octet-stream") + field(body) + end)
        for i, body in enumerate(bodies)
    )
    return b"I" + b"".join(requests) + end


def test_the_patched_worker_reads_what_the_original_reads(
    original: Callable[..., bytearray],
) -> None:
    content = inference_message(b"", b"[[1, 2]]", bytes(range(256)) * 4)
    results = []
    for patch in (lambda: None, torchserve_worker.apply):
        patch()
        with connection() as (frontend, worker):
            frontend.sendall(content + content)
            results.append([otf_message_handler.retrieve_msg(worker) for _ in range(2)])
    assert otf_message_handler._retrieve_buffer is not original
    assert results[0] == results[1]
    assert [request["requestId"] for request in results[1][0][1]] == [b"id0", b"id1", b"id2"]


@given(places=st.lists(st.integers(0, 500), max_size=20))
def test_a_batch_is_whole_wherever_it_was_cut(places: list[int]) -> None:
    content = inference_message(b"", b"[[1, 2]]", bytes(range(64)))
    batches = []
    for pieces in ([content[1:]], cut(content[1:], places)):
        with connection() as (frontend, worker):
            batches.append(BufferedReader().requests(Trickle(frontend, worker, pieces)))
    assert batches[0] == batches[1]
    assert [request["requestId"] for request in batches[1]] == [b"id0", b"id1", b"id2"]


def test_a_body_stays_bytes_whatever_its_type(
    original: Callable[..., bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
    torchserve_worker.apply()
    content = inference_message(b"[1]").replace(
        field(b"application/octet-stream"), field(JSON_TYPE)
    )
    with connection() as (frontend, worker):
        frontend.sendall(content)
        _, (request,) = otf_message_handler.retrieve_msg(worker)
    assert request["parameters"][0]["value"] == b"[1]"


def test_another_torchserve_is_left_as_it_is(
    original: Callable[..., bytearray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ts, "__version__", "0.13.0")
    idle = torchserve_worker.apply()
    assert otf_message_handler._retrieve_buffer is original
    assert "TorchServe 0.13.0 is not 0.12.0" in caplog.text
    done: list[int] = []
    idle.when_idle(lambda: done.append(1))
    assert done == [1]


# --- the handler ---

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def handler(original: Callable[..., bytearray]) -> Iterator[Any]:
    """The handler as TorchServe finds it: the one class of a module opened by path."""
    level = logging.getLogger().level
    (cls,) = classes_in(load_by_path())
    yield cls()
    logging.getLogger().setLevel(level)


def load_by_path() -> ModuleType:
    file = Path(__file__).parents[2] / "handlers" / "torchserve_handler.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classes_in(module: ModuleType) -> list[type]:
    values = vars(module).values()
    return [v for v in values if isinstance(v, type) and v.__module__ == module.__name__]


def worker_context(directory: Path, settings: object = None) -> Context:
    yaml = None if settings is None else {"skipserve": settings}
    context = Context("small", str(directory), {}, 8, None, "0.12.0", model_yaml_config=yaml)
    context.request_processor = {}
    return context


def batch_of(context: Context, *requests: tuple[dict[str, str], dict[str, Any]]) -> list[Any]:
    """Put headers where TorchServe keeps them, and return what it hands to the handler."""
    context.request_processor = [RequestProcessor(headers) for headers, _ in requests]
    context.request_ids = {i: f"id{i}" for i in range(len(requests))}
    return [parts for _, parts in requests]


@pytest.mark.parametrize(
    "settings", [None, {}, {"backend": "torchscript", "precision": "fp16", "batch_size": 8}]
)
def test_the_handler_answers_a_batch_in_torchserves_terms(
    handler: Any, artifact: Artifact, settings: object
) -> None:
    context = worker_context(artifact.directory, settings)
    handler.initialize(context)
    data = batch_of(
        context,
        (JSON, {"body": bytearray(b'{"inputs": [[0.5, -0.25]]}')}),
        (JSON, {"body": bytearray(b'{"inputs": [[1, 2, 3]]}')}),
        ({"Content-Type": "multipart/form-data"}, {"inputs": bytearray(b"1")}),
    )
    answered, refused, form = handler.handle(data, context)
    expected = Engine(artifact, provider="cpu").predict([[0.5, -0.25]])
    assert json.loads(answered)["outputs"][0]["label"] == expected.labels[0]
    assert json.loads(refused)["error"]["row"] == 0
    assert b"multipart/form-data" in form
    assert [context.get_response_status(i) for i in range(3)] == [
        (200, None),
        (400, "wrong_shape"),
        (415, "unsupported_media_type"),
    ]
    assert {context.get_response_content_type(i) for i in range(3)} == {"application/json"}
    assert "inference;dur=" in context.get_response_headers(0)["server-timing"]


def test_the_handler_passes_binary_tensors_through(handler: Any, artifact: Artifact) -> None:
    context = worker_context(artifact.directory)
    handler.initialize(context)
    tensor = {"name": "inputs", "datatype": "FP16", "shape": [1, 2]}
    tensor["parameters"] = {"binary_data_size": 4}
    label = {"name": "label", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [tensor], "outputs": [label]}).encode()
    body = bytearray(header + np.float16([0.5, -0.25]).tobytes())
    headers = {HEADER_LENGTH.title(): str(len(header))}
    (reply,) = handler.handle(batch_of(context, (headers, {"body": body})), context)
    assert context.get_response_content_type(0) == "application/octet-stream"
    length = int(context.get_response_headers(0)["Inference-Header-Content-Length"])
    expected = Engine(artifact, provider="cpu").predict([[0.5, -0.25]])
    assert reply[length:] == expected.labels.tobytes()


def test_the_handler_knows_a_path_of_explanations_by_the_frontends_word(
    handler: Any, artifact: Artifact
) -> None:
    context = worker_context(artifact.directory)
    handler.initialize(context)
    parts = {"body": bytearray(b'{"inputs": [[0.5, -0.25]]}')}
    paths = ({"explain": "True"}, {"explain": "False"}, {"Explain": "True", "explain": "False"}, {})
    handler.handle(batch_of(context, *((JSON | path, parts) for path in paths)), context)
    statuses = [context.get_response_status(i)[0] for i in range(len(paths))]
    assert statuses == [404, 200, 200, 200]


def test_a_batch_travels_through_torchserves_own_codec(handler: Any, artifact: Artifact) -> None:
    context = worker_context(artifact.directory)
    handler.initialize(context)
    with connection() as (frontend, worker):
        frontend.sendall(inference_message(b'{"inputs": [[0.5, -0.25]]}', b"{}"))
        _, requests = otf_message_handler.retrieve_msg(worker)
    data = batch_of(
        context,
        *(
            (
                {h["name"].decode(): h["value"].decode() for h in request["headers"]},
                {part["name"]: part["value"] for part in request["parameters"]},
            )
            for request in requests
        ),
    )
    replies = handler.handle(data, context)
    ids = {i: request["requestId"].decode() for i, request in enumerate(requests)}
    message = otf_message_handler.create_predict_response(replies, ids, "done", 200, context)
    for part in chain(replies, (b"wrong_type", b"server-timing")):
        assert part in message


def test_the_handler_ends_the_worker_over_what_it_cannot_serve(
    handler: Any, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact"):
        handler.initialize(worker_context(tmp_path))
    with pytest.raises(ConfigError, match="unknown key 'worker'"):
        handler.initialize(worker_context(artifact.directory, {"worker": 2}))
