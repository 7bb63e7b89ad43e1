"""The clients of Triton and KServe against the real granian, with one input and two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from running import JSON, ROOT, Running, serving
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server
IDS, MASK = [[3, 4, 5], [6, 7, 0]], [[1, 1, 1], [1, 1, 0]]
ROWS = [[0.5, -0.25], [1.5, 0.5]]
MASKED = "/v2/models/masked/infer"


@pytest.fixture(scope="module")
def server(two_models: Path) -> Iterator[Running]:
    with serving(two_models) as running:
        yield running


@pytest.fixture(scope="module")
def native(server: Running) -> dict[str, Any]:
    """What the native protocol answers of the same rows, by model."""
    inputs = {"small": ROWS, "masked": {"input_ids": IDS, "attention_mask": MASK}}
    return {name: server.ask(name, {"inputs": rows})[2]["outputs"] for name, rows in inputs.items()}


def agree(outputs: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Outputs by name are what the native protocol says of each row."""
    for name, values in outputs.items():
        told = [row[name] for row in rows]
        np.testing.assert_allclose(np.asarray(values, float), np.asarray(told, float), atol=1e-6)


def tensor(name: str, values: object, datatype: str, binary: bool) -> triton.InferInput:
    dtype = np.object_ if datatype == "BYTES" else triton_dtype(datatype)
    array = np.asarray(values, dtype)
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def triton_dtype(datatype: str) -> type:
    return {"INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8}[datatype]


# --- Triton's client ---


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize("datatype", ["INT64", "INT32", "UINT8"])
def test_two_inputs_in_any_order(server, native, datatype, binary):
    inputs = [
        tensor("attention_mask", MASK, datatype, binary),
        tensor("input_ids", IDS, "INT64", not binary),  # one of them in bytes, or both in one way
    ]
    names = ("label", "probabilities", "depth_run", "held_back")
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        answer = client.infer("masked", inputs, outputs=wanted)
        agree({name: answer.as_numpy(name) for name in names}, native["masked"])
        metadata = client.get_model_metadata("masked")
    assert metadata["inputs"] == [
        {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "attention_mask", "datatype": "INT64", "shape": [-1, -1]},
    ]


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_text_is_refused_by_its_datatype(server, binary):
    words = [["a", "bc", "d"], ["e", "f", ""]]
    inputs = [
        tensor("input_ids", words, "BYTES", binary),
        tensor("attention_mask", MASK, "INT64", binary),
    ]
    says = r"'input_ids': datatype 'BYTES'; expected one of FP16, .*, INT64, .*UINT64"
    with (
        triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
        pytest.raises(InferenceServerException, match=says),
    ):
        client.infer("masked", inputs)


def test_bytes_alone_do_not_say_which_input_they_are(server):
    headers = {"Inference_Header_Content_Length": "0", "Content_Type": "application/octet-stream"}
    status, _, reply = server.send("POST", MASKED, np.int64(IDS).tobytes(), **headers)
    assert status == 400
    assert "send the JSON part too" in json.loads(reply)["error"]


def test_a_field_that_is_null_is_as_good_as_left_out(server, native):
    absent = {"id": None, "parameters": None, "outputs": None}
    inputs = [
        {"name": name, "datatype": "INT64", "shape": [2, 3], "data": rows, "parameters": None}
        for name, rows in (("input_ids", IDS), ("attention_mask", MASK))
    ]
    status, _, reply = server.send("POST", MASKED, {**absent, "inputs": inputs}, **JSON)
    assert status == 200, reply
    told = json.loads(reply)
    assert told.keys() == {"model_name", "model_version", "outputs", "parameters"}
    agree({"label": told["outputs"][0]["data"]}, native["masked"])


# --- KServe's requests ---


def question(model: str, binary: bool, outputs: list[str], **inputs: list[Any]) -> dict[str, Any]:
    return {"model": model, "binary": binary, "outputs": outputs, "inputs": inputs}


def test_what_kserves_client_serialises_is_answered(server, native, kserve_packages):
    rows, ids, mask = (np.ravel(values).tolist() for values in (ROWS, IDS, MASK))
    texts = {"attention_mask": ["INT64", [2, 3], mask], "input_ids": ["INT32", [2, 3], ids]}
    good = [
        question("small", binary, outputs, inputs=["FP32", [2, 2], rows])
        for binary in (False, True)
        for outputs in ([], ["held_back", "probabilities"])
    ]
    good += [question("masked", binary, [], **texts) for binary in (False, True)]
    words = texts | {"input_ids": ["BYTES", [2, 3], ["a", "b", "c", "d", "e", "f"]]}
    bad = [question("masked", binary, [], **words) for binary in (False, True)]
    bad.append(question("small", True, [], inputs=["FP32", [1, 4], rows]))
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tests/support/kserve_client.py",
            f"http://127.0.0.1:{server.port}",
        ],
        input=json.dumps([*good, *bad]),
        env={**os.environ, "PYTHONPATH": str(kserve_packages)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for sent, answer in zip(good, told[: len(good)], strict=True):
        assert answer["id"] == "7"
        assert answer["model"] == sent["model"]
        assert len(answer["outputs"]) == (len(sent["outputs"]) or 4)
        agree(answer["outputs"], native[sent["model"]])
    says = ["datatype 'BYTES'", "datatype 'BYTES'", "shape is [1, 4]"]
    for expected, answer in zip(says, told[len(good) :], strict=True):
        assert expected in answer["error"]
