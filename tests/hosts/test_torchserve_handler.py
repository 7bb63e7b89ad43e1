"""The handler of TorchServe's worker, with TorchServe's own parts."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torchserve_parts import connection, inference_message
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ArtifactError, ConfigError
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.runtime.engine import Engine

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
    length = int(context.get_response_headers(0)[HEADER_LENGTH])
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
