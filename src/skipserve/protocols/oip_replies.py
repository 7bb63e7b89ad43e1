"""Replies of the Open Inference Protocol: outputs in JSON or binary, as requested."""

from __future__ import annotations

from typing import Any

import msgspec
from numpy.typing import NDArray

from skipserve.errors import InputError, quoted
from skipserve.protocols.messages import Reply
from skipserve.protocols.oip_tensors import Parameters
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.tasks import Task

HEADER_LENGTH = "inference-header-content-length"
# As a model's only version is called, in paths, metadata and replies.
VERSION = "1"
DATATYPES = {"f": "FP32", "i": "INT64", "b": "BOOL"}


def outputs_of(task: Task) -> dict[str, tuple[str, list[int]]]:
    """Datatype and shape of each output of a model, by name; −1 is the batch."""
    labels: dict[str, tuple[str, list[int]]] = {}
    if task.kind == "classify":
        labels["label"] = ("INT64", [-1])
    if task.kind == "multilabel":
        labels["labels"] = ("INT64", [-1, task.width])
    return labels | {
        task.output: ("FP32", [-1, task.width]),
        "depth_run": ("INT64", [-1]),
        "held_back": ("BOOL", [-1]),
    }


def _values(prediction: Prediction, task: Task, name: str) -> NDArray[Any]:
    if name == task.output:
        return prediction.answers
    if name in ("label", "labels"):
        assert prediction.labels is not None
        return prediction.labels
    return prediction.depth_run if name == "depth_run" else prediction.held_back


class Output(msgspec.Struct):
    """A requested output."""

    name: str
    parameters: Parameters = None


def given(parameters: Parameters) -> dict[str, Any]:
    """Parameters without those that are null."""
    return {key: value for key, value in (parameters or {}).items() if value is not None}


def flag(parameters: Parameters, name: str, default: bool) -> bool:
    """A boolean parameter.

    Raises:
        InputError: If it is something else: ``"no"`` must not mean yes.
    """
    value = given(parameters).get(name, default)
    if not isinstance(value, bool):
        raise InputError("invalid_parameter", f"{name} is {quoted(value)}, expected true or false")
    return value


def tensors(
    prediction: Prediction, task: Task, asked: list[Output] | None, all_binary: bool
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The outputs of a reply, and the binary chunks behind its JSON.

    Args:
        prediction: The answers.
        task: What they are.
        asked: The outputs, in order; all of them if there are none.
        all_binary: Whether those that do not say how they want to come come as bytes.
    """
    entries, chunks = [], []
    for output in asked or [Output(name) for name in outputs_of(task)]:
        values = _values(prediction, task, output.name)
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": DATATYPES[values.dtype.kind],
            "shape": list(values.shape),
        }
        if flag(output.parameters, "binary_data", all_binary):
            raw = values.tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            chunks.append(raw)
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    return entries, chunks


def router_parameters(setting: Setting) -> dict[str, object]:
    """Parameters of a reply: the state of the router and the risk."""
    if setting.risk is not None:
        return {"router": "on", "risk": setting.risk, "router_measure": setting.measure}
    off: dict[str, object] = {"router": "off"}
    return off | ({"router_reason": setting.reason} if setting.reason else {})


def reply(body: dict[str, Any], chunks: list[bytes]) -> Reply:
    """The reply: JSON, and binary chunks behind it if there are any."""
    header = msgspec.json.encode(body)
    if not chunks:
        return Reply(header)
    return Reply(
        b"".join([header, *chunks]),
        headers={
            "content-type": "application/octet-stream",
            HEADER_LENGTH: str(len(header)),
        },
    )
