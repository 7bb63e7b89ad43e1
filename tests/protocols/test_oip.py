"""The Open Inference Protocol: requests as the clients of KServe and Triton send them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oip_requests import (
    FLOATS,
    IDS,
    MASK,
    MAX_ROWS,
    OFF,
    TASK,
    Decode,
    answer,
    binary_request,
    ids,
    is_binary,
    json_request,
    mask,
    raw_request,
    read,
    tensor,
)
from signatures import spec, taking

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.oip import OpenInference, is_oip_request
from skipserve.protocols.oip_replies import HEADER_LENGTH, outputs_of
from skipserve.protocols.oip_tensors import DTYPES
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction
from skipserve.runtime.rows import check_rows


@pytest.mark.parametrize(
    ("body", "headers", "oip"),
    [
        (b'{"inputs": [{"name": "inputs"}]}', {}, True),
        (b'{"id": "1",\n"inputs"\t:\n[ {', {}, True),
        (b"", {HEADER_LENGTH: "0"}, True),
        (None, {HEADER_LENGTH: "0"}, True),
        (b'{"id": "\\"inputs\\"", "inputs": [{', {}, True),
        (b'{"parameters": {"inputs": 1}, "inputs": [{', {}, True),
        (b'{"inputs": [[1, 2]]}', {}, False),
        (b'{"inputs": []}', {}, False),
        (b"", {}, False),
        (None, {}, False),
    ],
)
def test_a_request_is_told_by_its_content(
    body: bytes | None, headers: dict[str, str], oip: bool
) -> None:
    assert is_oip_request(RawRequest(body, headers)) is oip


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]], ids=["flat", "nested"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_json_tensors(decode_oip: Decode, datatype: str, data: list[Any]) -> None:
    request = json_request(tensor(datatype=datatype, shape=[2, 2], data=data))
    assert decode_oip(request).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("datatype", DTYPES)
def test_binary_tensors(decode_oip: Decode, datatype: str) -> None:
    chunk = np.array([[1, 2], [3, 4]], DTYPES[datatype]).tobytes()
    decoded = decode_oip(binary_request(chunk, datatype=datatype, shape=[2, 2]))
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [[1, 2], [3, 4]]


def test_keys_and_parameters_the_protocol_may_grow_are_allowed(decode_oip: Decode) -> None:
    request = json_request(tensor(parameters={"a": 1}, b=2), c=3, parameters={"router": "off"})
    assert decode_oip(request).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "request_",
    [
        json_request(tensor(parameters=None), id=None, parameters=None, outputs=None),
        json_request(tensor(parameters={"binary_data_size": None}), outputs=[]),
        json_request(tensor(), parameters={"router": None, "router_measure": None}),
        json_request(tensor(), parameters={"router": "off", "router_measure": None}),
        json_request(tensor(), outputs=[{"name": "label", "parameters": None}]),
        binary_request(FLOATS, data=None),
    ],
    ids=["as KServe's client writes it", "size", "router", "measure", "output", "no data"],
)
def test_null_is_as_good_as_left_out(
    open_inference: OpenInference, decode_oip: Decode, prediction: Prediction, request_: RawRequest
) -> None:
    assert decode_oip(request_).tolist() == [[1, 2]]
    reply = open_inference.decode(request_).encode(answer_of(prediction, OFF, TASK))
    assert "id" not in read(reply).get_response()


@pytest.mark.parametrize("nothing", [None, {}, {"binary_data": None}])
def test_an_output_that_does_not_say_how_it_wants_to_come_comes_as_all_do(
    open_inference: OpenInference, prediction: Prediction, nothing: object
) -> None:
    for binary in (True, False):
        result = answer(
            open_inference,
            prediction,
            parameters={"binary_data_output": binary},
            outputs=[{"name": "label", "parameters": nothing}],
        )
        assert is_binary(result, "label") is binary


def test_a_byte_order_mark_is_no_part_of_the_json(decode_oip: Decode) -> None:
    mark = b"\xef\xbb\xbf"
    text, chunk = json_request(tensor()), binary_request(FLOATS)
    header = int(chunk.headers[HEADER_LENGTH])
    assert decode_oip(RawRequest(mark + text.body, {})).tolist() == [[1, 2]]
    marked = RawRequest(mark + chunk.body, {HEADER_LENGTH: str(header + len(mark))})
    assert decode_oip(marked).tolist() == [[1, 2]]


def test_raw_bytes_are_rows_and_are_answered_in_bytes(
    open_inference: OpenInference, engine: Engine, rows: NDArray[np.float32]
) -> None:
    parsed = open_inference.decode(raw_request(rows[:3].tobytes()))
    np.testing.assert_array_equal(parsed.rows["inputs"], rows[:3])
    result = read(parsed.encode(answer_of(engine.run(engine.check(parsed.rows)), engine.off, TASK)))
    assert all(is_binary(result, name) for name in outputs_of(TASK))
    expected = engine.predict(rows[:3]).answers
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)


def test_nested_data_of_rows_of_higher_rank(artifact: Artifact) -> None:
    images = OpenInference(taking(artifact, spec("inputs", "float32", 2, 3)), MAX_ROWS)
    values = np.arange(12.0).reshape(2, 2, 3)
    for data in (values.ravel().tolist(), values.tolist()):
        decoded = images.decode(json_request(tensor(shape=[2, 2, 3], data=data))).rows
        np.testing.assert_array_equal(decoded["inputs"], values)


@pytest.fixture(scope="module")
def several(artifact: Artifact) -> OpenInference:
    return OpenInference(taking(artifact, IDS, MASK), MAX_ROWS)


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned round"])
@pytest.mark.parametrize("binary", ["", "ids", "mask", "ids mask"])
def test_several_tensors_in_any_order_each_in_its_own_form(
    several: OpenInference, artifact: Artifact, binary: str, turned: bool
) -> None:
    tensors, chunks = [], []
    chunk = {
        "ids": np.int64([[5, 7, 9], [1, 2, 3]]).tobytes(),
        "mask": np.array([1, 1, 0, 1, 0, 0], bool).tobytes(),
    }
    for name, make in sorted({"ids": ids, "mask": mask}.items(), reverse=turned):
        if name in binary:
            chunks.append(chunk[name])
            size = {"binary_data_size": len(chunk[name])}
            tensors.append(make(data=None, parameters=size))
        else:
            tensors.append(make())
    header = json_request(*tensors).body
    headers = {HEADER_LENGTH: str(len(header))} if chunks else {}
    parsed = several.decode(RawRequest(header + b"".join(chunks), headers))
    rows = check_rows(parsed.rows, taking(artifact, IDS, MASK).signature, "small").tensors
    assert (rows["input_ids"].dtype, rows["attention_mask"].dtype) == (np.int32, bool)
    assert rows["input_ids"].tolist() == [[5, 7, 9], [1, 2, 3]]
    assert rows["attention_mask"].tolist() == [[True, True, False], [True, False, False]]


# What is wrong: (request, code, what the message says)
BAD_TENSORS = {
    "one missing": (
        json_request(ids()),
        "wrong_input",
        "takes 2 input tensors, each once: 'input_ids', 'attention_mask'",
    ),
    "one twice": (json_request(ids(), ids()), "wrong_input", "each once"),
    "a free dimension of 0": (
        json_request(ids(shape=[2, 0], data=[]), mask()),
        "wrong_shape",
        "'input_ids': shape is [2, 0], expected [rows, -1]",
    ),
    "numbers that are true": (
        json_request(ids(datatype="BOOL"), mask()),
        "wrong_type",
        "'input_ids': datatype 'BOOL'; expected one of FP16",
    ),
    "beyond the datatype": (
        json_request(ids(datatype="INT8", data=[300] * 6), mask()),
        "wrong_type",
        "'input_ids': data: 300 is no INT8",
    ),
    "bytes that belong to nobody": (
        RawRequest(json_request(ids(), mask()).body + b"xx", {}),
        "invalid_json",
        "not an inference request",
    ),
    "raw bytes": (raw_request(b"abcd"), "wrong_header", "bytes alone do not say which input"),
}


@pytest.mark.parametrize(("request_", "code", "says"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_bad_tensor_is_told_which_it_is(
    several: OpenInference, request_: RawRequest, code: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        several.decode(request_)
    assert caught.value.code == code
    assert says in caught.value.message


def test_bytes_left_over_are_refused(several: OpenInference) -> None:
    header = json_request(ids(), mask()).body
    request = RawRequest(header + b"xx", {HEADER_LENGTH: str(len(header))})
    with pytest.raises(InputError, match="2 bytes follow the JSON that belong to no tensor"):
        several.decode(request)


def test_bytes_that_are_neither_true_nor_false_are_refused(artifact: Artifact) -> None:
    manifest = taking(artifact, spec("inputs", "bool", 2))
    rows = OpenInference(manifest, MAX_ROWS).decode(raw_request(b"\x00\x01\x02\x01")).rows
    with pytest.raises(InputError, match="row 1 of 'inputs' holds a number that is no bool"):
        check_rows(rows, manifest.signature, "small")


def test_the_largest_whole_number_is_told_from_one_more(artifact: Artifact) -> None:
    signature = taking(artifact, spec("inputs", "int64", 1)).signature
    rows = check_rows(np.array([[2**63 - 1], [-(2**63)]]), signature, "small")
    assert rows.tensors["inputs"].tolist() == [[2**63 - 1], [-(2**63)]]
    with pytest.raises(InputError, match="row 1 of 'inputs'"):
        check_rows(np.float64([[1], [2**63]]), signature, "small")
