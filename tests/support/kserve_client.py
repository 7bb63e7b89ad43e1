"""Asks a running service as KServe's own client does; run by test_oip_clients.py and extras.sh.

Where all of KServe is installed its `InferenceRESTClient` asks. That cannot be beside us, so the
tests install no more than its requests and replies, and send what they serialise as it does.
Reads a JSON list of questions, each `{"model", "inputs": {name: [datatype, shape, numbers]},
"binary", "outputs"}`; writes a list of answers, `{"outputs": {name: numbers}, …}` or `{"error"}`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
import types
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.error import HTTPError

import numpy as np

LENGTH = "inference-header-content-length"
Send = Callable[[str, Any], Awaitable[Any]]


def load() -> types.ModuleType:
    """`kserve.protocol.infer_type`, without the server that `import kserve` would load."""
    package = types.ModuleType("kserve")
    package.__path__ = list(importlib.util.find_spec("kserve").submodule_search_locations)
    sys.modules["kserve"] = package
    return importlib.import_module("kserve.protocol.infer_type")


def by_hand(url: str, kinds: types.ModuleType) -> Send:
    """Sends what `InferRequest.to_rest` makes, and reads it with `InferResponse.from_bytes`."""

    async def send(model: str, request: Any) -> Any:
        body, length = request.to_rest()
        headers = {"content-type": "application/json"}
        if length:
            headers = {LENGTH: str(length), "content-type": "application/octet-stream"}
        else:
            body = json.dumps(body).encode()
        asked = urllib.request.Request(f"{url}/v2/models/{model}/infer", body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as reply:
                content = reply.read()
                length = int(reply.headers.get(LENGTH, len(content)))
        except HTTPError as error:
            raise ValueError(json.loads(error.read())["error"]) from None
        return kinds.InferResponse.from_bytes(content, length)

    return send


def by_client(url: str) -> Send:
    """Asks with KServe's client."""
    from kserve import InferenceRESTClient
    from kserve.inference_client import RESTConfig

    async def send(model: str, request: Any) -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, model)
        try:
            return await client.infer(url, request, model_name=model)
        finally:
            await client.close()

    return send


def request_of(kinds: types.ModuleType, question: dict[str, Any]) -> Any:
    """A question as KServe's request."""
    inputs = []
    for name, (datatype, shape, numbers) in question["inputs"].items():
        values = np.array(numbers, object if datatype == "BYTES" else datatype_of(datatype))
        one = kinds.InferInput(name, shape, datatype)
        one.set_data_from_numpy(values.reshape(shape), binary_data=question["binary"])
        inputs.append(one)
    outputs = [
        kinds.RequestedOutput(name, parameters={"binary_data": question["binary"]})
        for name in question["outputs"]
    ]
    return kinds.InferRequest(
        question["model"], inputs, request_id="7", request_outputs=outputs or None
    )


def datatype_of(name: str) -> np.dtype[Any]:
    """NumPy's type for a datatype of the protocol."""
    return np.dtype({"FP": "float", "IN": "int"}[name[:2]] + name.lstrip("FPINT"))


async def answers(questions: list[dict[str, Any]], url: str) -> list[dict[str, Any]]:
    """Ask one after the other."""
    try:
        kinds = importlib.import_module("kserve.protocol.infer_type")
        send = by_client(url)
    except ImportError:
        kinds = load()
        send = by_hand(url, kinds)
    told = []
    for question in questions:
        try:
            reply = await send(question["model"], request_of(kinds, question))
        except Exception as error:
            told.append({"error": str(error)})
            continue
        outputs = {one.name: one.as_numpy().tolist() for one in reply.outputs}
        told.append({"outputs": outputs, "id": reply.id, "model": reply.model_name})
    return told


if __name__ == "__main__":
    json.dump(asyncio.run(answers(json.load(sys.stdin), sys.argv[1])), sys.stdout)
