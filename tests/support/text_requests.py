"""Texts asked of a service in every protocol, and the tensors that they become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizing import LONGEST, tokenizer

from skipserve.protocols.messages import JSON, RawRequest, Reply
from skipserve.protocols.oip_values import BYTES
from skipserve.service.service import Service

SENT = ["A great film", "dull", "the films, very very great"]
PAIRS = [["great film", "dull"], {"text": "a", "text_pair": "the film"}, {"text": "dull"}]
IS_JSON = {"content-type": JSON}


def tokens(values: list[Any]) -> dict[str, Any]:
    """What the library makes of values, padded: an own path to the same tensors."""
    made = tokenizer()
    made.enable_truncation(LONGEST)
    made.enable_padding(pad_id=0)
    pairs = [[*v.values()] if isinstance(v, dict) else v for v in values]
    rows = [
        made.encode(v[0] if isinstance(v, list) and len(v) == 1 else v)
        if isinstance(v, str) or len(v) == 1
        else made.encode(*v)
        for v in pairs
    ]
    longest = max(len(row.ids) for row in rows)
    for row in rows:
        row.pad(longest, pad_id=0)
    return {
        "input_ids": [row.ids for row in rows],
        "attention_mask": [row.attention_mask for row in rows],
    }


def ask(service: Service, body: object, headers: Mapping[str, str] = IS_JSON) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.answer([RawRequest(content, headers)])[0]


def by_column(service: Service, values: list[Any]) -> Reply:
    """The column format of TensorFlow Serving."""
    body = {"signature_name": "", "inputs": values}
    return service.answer([RawRequest(json.dumps(body).encode(), IS_JSON, protocol="v1")])[0]


def told(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def probabilities(rows: list[dict[str, Any]]) -> list[list[float]]:
    return [row["probabilities"] for row in rows]


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["data"] for one in answer["outputs"]}


def tensor(data: list[Any], *shape: int) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": BYTES, "shape": shape, "data": data}]}
