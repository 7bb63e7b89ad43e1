"""Requests of the Open Inference Protocol: JSON, binary, raw."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from signatures import spec
from tritonclient.http import InferenceServerClient, InferResult

from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.protocols.oip import OpenInference
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.tasks import Classify

TASK = Classify(classes=2)
MAX_ROWS = 8
Decode = Callable[[RawRequest], NDArray[np.float32]]


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


def json_request(*tensors: dict[str, object], **fields: object) -> RawRequest:
    return RawRequest(json.dumps({"inputs": tensors, **fields}).encode(), {})


def binary_request(chunk: bytes, length: str = "", **changes: object) -> RawRequest:
    """One tensor whose ``chunk`` follows the JSON; ``length`` stands in for the true header."""
    fields = tensor(parameters={"binary_data_size": len(chunk)}) | changes
    del fields["data"]
    header = json.dumps({"inputs": [fields]}).encode()
    return RawRequest(header + chunk, {HEADER_LENGTH: length or str(len(header))})


def raw_request(content: bytes) -> RawRequest:
    """No JSON at all: the bytes of one tensor."""
    return RawRequest(content, {HEADER_LENGTH: "0"})


FLOATS = np.float32([1, 2]).tobytes()
IDS, MASK = spec("input_ids", "int32", "length"), spec("attention_mask", "bool", "length")


def ids(**changes: object) -> dict[str, object]:
    fields = {"name": "input_ids", "datatype": "INT64", "shape": [2, 3]}
    return fields | {"data": [[5, 7, 9], [1, 2, 3]]} | changes


def mask(**changes: object) -> dict[str, object]:
    fields = {"name": "attention_mask", "datatype": "BOOL", "shape": [2, 3]}
    return fields | {"data": [True, True, False, True, False, False]} | changes


def read(reply: Reply) -> InferResult:
    """A reply as Triton's own client reads it."""
    length = reply.headers.get(HEADER_LENGTH)
    return InferenceServerClient.parse_response_body(
        reply.body, header_length=length and int(length)
    )


def is_binary(result: InferResult, name: str) -> bool:
    return "binary_data_size" in (result.get_output(name).get("parameters") or {})


OFF = Setting(np.empty(0, dtype=np.float32), np.inf)


def answer(open_inference: OpenInference, prediction: Prediction, **fields: object) -> InferResult:
    parsed = open_inference.decode(json_request(tensor(), **fields))
    return read(parsed.encode(answer_of(prediction, OFF, TASK)))


def named(result: InferResult) -> list[str]:
    return [output["name"] for output in result.get_response()["outputs"]]
