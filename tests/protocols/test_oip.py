"""The Open Inference Protocol: what KServe's and Triton's clients send, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from signatures import spec, taking
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.protocols.oip import OpenInference, is_oip_request
from skipserve.protocols.oip_replies import HEADER_LENGTH, outputs_of
from skipserve.protocols.oip_tensors import DTYPES
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import check_rows
from skipserve.tasks import Classify

TASK = Classify(classes=2)

MAX_ROWS = 8

Decode = Callable[[RawRequest], NDArray[np.float32]]


@pytest.fixture(scope="module")
def protocol(artifact: Artifact) -> OpenInference:
    return OpenInference(artifact.manifest, MAX_ROWS)


@pytest.fixture(scope="module")
def decode(protocol: OpenInference, engine: Engine) -> Decode:
    """A request to the rows that would run; both steps that can refuse it."""
    return lambda request: engine.check(protocol.decode(request).rows).tensors["inputs"]


@pytest.fixture(scope="module")
def prediction(engine: Engine, rows: NDArray[np.float32]) -> Prediction:
    return engine.predict(rows[:3])


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


def json_request(*tensors: dict[str, object], **fields: object) -> RawRequest:
    return RawRequest(json.dumps({"inputs": tensors, **fields}).encode(), {})


def binary_request(chunk: bytes, length: str = "", **changes: object) -> RawRequest:
    """One tensor whose ``chunk`` follows the JSON; ``length`` stands in for the true header."""
    fields = tensor(parameters={"binary_data_size": len(chunk)}) | changes
    del fields["data"]
    header = json.dumps({"inputs": [fields]}).encode()
    return RawRequest(header + chunk, {HEADER_LENGTH.lower(): length or str(len(header))})


def raw_request(content: bytes) -> RawRequest:
    """No JSON at all: the bytes of one tensor."""
    return RawRequest(content, {HEADER_LENGTH.lower(): "0"})


FLOATS = np.float32([1, 2]).tobytes()


# --- which protocol ---


@pytest.mark.parametrize(
    ("body", "headers", "oip"),
    [
        (b'{"inputs": [{"name": "inputs"}]}', {}, True),
        (b'{"id": "1",\n"inputs"\t:\n[ {', {}, True),
        (b"", {HEADER_LENGTH.lower(): "0"}, True),
        (None, {HEADER_LENGTH.lower(): "0"}, True),
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


# --- tensors in ---


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]], ids=["flat", "nested"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_json_tensors(decode: Decode, datatype: str, data: list[Any]) -> None:
    request = json_request(tensor(datatype=datatype, shape=[2, 2], data=data))
    assert decode(request).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("datatype", DTYPES)
def test_binary_tensors(decode: Decode, datatype: str) -> None:
    chunk = np.array([[1, 2], [3, 4]], DTYPES[datatype]).tobytes()
    decoded = decode(binary_request(chunk, datatype=datatype, shape=[2, 2]))
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [[1, 2], [3, 4]]


def test_keys_and_parameters_the_protocol_may_grow_are_allowed(decode: Decode) -> None:
    request = json_request(tensor(parameters={"a": 1}, b=2), c=3, parameters={"router": "off"})
    assert decode(request).tolist() == [[1, 2]]


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
    protocol: OpenInference, decode: Decode, prediction: Prediction, request_: RawRequest
) -> None:
    assert decode(request_).tolist() == [[1, 2]]
    reply = protocol.decode(request_).encode(answer_of(prediction, OFF, TASK))
    assert "id" not in read(reply).get_response()


@pytest.mark.parametrize("nothing", [None, {}, {"binary_data": None}])
def test_an_output_that_does_not_say_how_it_wants_to_come_comes_as_all_do(
    protocol: OpenInference, prediction: Prediction, nothing: object
) -> None:
    for binary in (True, False):
        result = answer(
            protocol,
            prediction,
            parameters={"binary_data_output": binary},
            outputs=[{"name": "label", "parameters": nothing}],
        )
        assert is_binary(result, "label") is binary


def test_a_byte_order_mark_is_no_part_of_the_json(decode: Decode) -> None:
    mark = b"\xef\xbb\xbf"
    text, chunk = json_request(tensor()), binary_request(FLOATS)
    header = int(chunk.headers[HEADER_LENGTH.lower()])
    assert decode(RawRequest(mark + text.body, {})).tolist() == [[1, 2]]
    marked = RawRequest(mark + chunk.body, {HEADER_LENGTH.lower(): str(header + len(mark))})
    assert decode(marked).tolist() == [[1, 2]]


def test_raw_bytes_are_rows_and_are_answered_in_bytes(
    protocol: OpenInference, engine: Engine, rows: NDArray[np.float32]
) -> None:
    parsed = protocol.decode(raw_request(rows[:3].tobytes()))
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


# --- what other signatures take ---

IDS, MASK = spec("input_ids", "int32", "length"), spec("attention_mask", "bool", "length")


@pytest.fixture(scope="module")
def several(artifact: Artifact) -> OpenInference:
    return OpenInference(taking(artifact, IDS, MASK), MAX_ROWS)


def ids(**changes: object) -> dict[str, object]:
    fields = {"name": "input_ids", "datatype": "INT64", "shape": [2, 3]}
    return fields | {"data": [[5, 7, 9], [1, 2, 3]]} | changes


def mask(**changes: object) -> dict[str, object]:
    fields = {"name": "attention_mask", "datatype": "BOOL", "shape": [2, 3]}
    return fields | {"data": [True, True, False, True, False, False]} | changes


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
    headers = {HEADER_LENGTH.lower(): str(len(header))} if chunks else {}
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
    request = RawRequest(header + b"xx", {HEADER_LENGTH.lower(): str(len(header))})
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


# --- tensors out ---


def read(reply: Reply) -> InferResult:
    """A reply as Triton's own client reads it."""
    length = reply.headers.get("Inference-Header-Content-Length")
    return InferenceServerClient.parse_response_body(
        reply.body, header_length=length and int(length)
    )


OFF = Setting(np.empty(0, dtype=np.float32), np.inf)


def answer(protocol: OpenInference, prediction: Prediction, **fields: object) -> InferResult:
    parsed = protocol.decode(json_request(tensor(), **fields))
    return read(parsed.encode(answer_of(prediction, OFF, TASK)))


def named(result: InferResult) -> list[str]:
    return [output["name"] for output in result.get_response()["outputs"]]


def is_binary(result: InferResult, name: str) -> bool:
    return "binary_data_size" in (result.get_output(name).get("parameters") or {})


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_every_output_comes_back_unless_some_are_asked_for(
    protocol: OpenInference, prediction: Prediction, binary: bool
) -> None:
    result = answer(protocol, prediction, parameters={"binary_data_output": binary})
    assert result.get_response()["model_name"] == "small"
    assert result.get_response()["model_version"] == "1"
    assert named(result) == list(outputs_of(TASK))
    attributes = ("labels", "answers", "depth_run", "held_back")
    for name, attribute in zip(outputs_of(TASK), attributes, strict=True):
        expected = getattr(prediction, attribute)
        assert is_binary(result, name) is binary
        assert result.as_numpy(name).dtype == expected.dtype
        np.testing.assert_array_equal(result.as_numpy(name), expected)


def test_outputs_come_in_the_order_asked_each_in_its_own_form(
    protocol: OpenInference, prediction: Prediction
) -> None:
    result = answer(
        protocol,
        prediction,
        parameters={"binary_data_output": True},
        outputs=[
            {"name": "depth_run"},
            {"name": "probabilities", "parameters": {"binary_data": False}},
            {"name": "label", "parameters": {"binary_data": True}},
        ],
    )
    assert named(result) == ["depth_run", "probabilities", "label"]
    assert [is_binary(result, name) for name in named(result)] == [True, False, True]
    np.testing.assert_array_equal(result.as_numpy("depth_run"), prediction.depth_run)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), prediction.answers)
    np.testing.assert_array_equal(result.as_numpy("label"), prediction.labels)


@pytest.mark.parametrize("fields", [{"id": "a·7"}, {"id": ""}, {}], ids=["some", "empty", "none"])
def test_the_id_comes_back(
    protocol: OpenInference, prediction: Prediction, fields: dict[str, str]
) -> None:
    response = answer(protocol, prediction, **fields).get_response()
    assert {key: response[key] for key in response if key == "id"} == fields


@pytest.mark.parametrize(
    ("datatype", "binary"),  # the client sends FP16 as bytes only
    [("FP16", True), ("FP32", True), ("FP64", True), ("FP32", False), ("FP64", False)],
)
def test_tritons_client_is_understood(
    protocol: OpenInference,
    engine: Engine,
    rows: NDArray[np.float32],
    datatype: str,
    binary: bool,
) -> None:
    sent = rows[:3].astype(DTYPES[datatype])
    tensor = InferInput("inputs", sent.shape, datatype)
    tensor.set_data_from_numpy(sent, binary_data=binary)
    outputs = [InferRequestedOutput("probabilities", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body(
        [tensor], outputs=outputs, request_id="7"
    )
    headers = {} if length is None else {HEADER_LENGTH.lower(): str(length)}
    parsed = protocol.decode(RawRequest(body, headers))
    result = read(parsed.encode(answer_of(engine.run(engine.check(parsed.rows)), engine.off, TASK)))
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy("probabilities"), engine.predict(sent).answers)


# --- bad requests ---

SHAPE = "expected [rows, 2]"
TYPES = "expected one of FP16, FP32"
NUMBERS = "expected a list of numbers"
FINITE = "expected finite numbers"
INPUT = "takes one input tensor named 'inputs'"
REQUEST = "not an inference request"
HEADER = "expected the length of the JSON part"
BYTES = "shape [1, 2] of FP32 takes 8"
DEEP = b"[" * 60_000

# (code, status, what the message says): {name: request}
BAD_REQUESTS: dict[tuple[str, int, str], dict[str, RawRequest]] = {
    ("wrong_header", 400, HEADER): {
        "header beyond the body": binary_request(FLOATS, length="1000"),
        "header negative": binary_request(FLOATS, length="-1"),
        "header no number": binary_request(FLOATS, length="ten"),
        "header in other digits": binary_request(FLOATS, length="١٢"),
        "header very long": binary_request(FLOATS, length="9" * 5000),
    },
    ("invalid_json", 400, REQUEST): {
        "header cuts the JSON": binary_request(FLOATS, length="5"),
        "header reaches into the bytes": binary_request(FLOATS, length="110"),
        "no JSON": RawRequest(b"hello", {HEADER_LENGTH.lower(): "5"}),
        "not UTF-8": RawRequest(b'{"inputs": [{"name": "\xff"}]}', {}),
        "NaN": json_request(tensor(data=[1, float("nan")])),
        "beyond float64": RawRequest(b'{"inputs": [{"name": "inputs", "data": [1e999]}]}', {}),
        "60,000 levels": RawRequest(b'{"inputs": [{"name": "inputs", "data": ' + DEEP, {}),
        "no datatype": json_request({"name": "inputs", "shape": [1, 2], "data": [1, 2]}),
        "shape a string": json_request(tensor(shape="1x2")),
        "shape of bools": json_request(tensor(shape=[True, 2])),
        "id a number": json_request(tensor(), id=7),
    },
    ("unsupported_media_type", 415, "expected application/json"): {
        "a form": RawRequest(None, {HEADER_LENGTH.lower(): "0"}),
    },
    ("wrong_input", 400, INPUT): {
        "wrong input name": json_request(tensor(name="input")),
        "an input too many": json_request(tensor(), tensor(name="more")),
        "an input twice": json_request(tensor(), tensor()),
    },
    ("wrong_type", 400, TYPES): {
        "text": json_request(tensor(datatype="BYTES", data=["a", "b"])),
        "bool": json_request(tensor(datatype="BOOL", data=[True, False])),
        "lower case": json_request(tensor(datatype="fp32")),
    },
    ("wrong_type", 400, NUMBERS): {
        "no data": json_request(tensor(data=None)),
        "data a number": json_request(tensor(data=1)),
        "string among numbers": json_request(tensor(data=[1, "2"])),
        "bool among numbers": json_request(tensor(data=[1, True])),
        "null among numbers": json_request(tensor(data=[[1, None]])),
        "nested too deep": json_request(tensor(data=[[[1], [2]]])),
    },
    ("wrong_shape", 400, SHAPE): {
        "row too long": json_request(tensor(shape=[1, 3], data=[1, 2, 3])),
        "no batch dimension": json_request(tensor(shape=[2])),
        "no dimension": json_request(tensor(shape=[])),
        "a dimension too many": json_request(tensor(shape=[1, 1, 2])),
        "negative": json_request(tensor(shape=[-1, 2])),
    },
    ("wrong_shape", 400, "shape [1, 2]"): {
        "data too long": json_request(tensor(data=[1, 2, 3])),
        "data too short": json_request(tensor(data=[])),
    },
    ("wrong_shape", 400, "shape [2, 2]"): {
        "ragged, though the numbers add up": json_request(
            tensor(shape=[2, 2], data=[[1, 2, 3], [4]])
        ),
    },
    ("wrong_shape", 400, "expected a multiple of 8, rows of shape [2]"): {
        "raw bytes of no whole row": raw_request(FLOATS[:-1]),
        "JSON though the header says there is none": binary_request(FLOATS, length="0"),
    },
    ("wrong_shape", 400, BYTES): {
        "bytes missing": binary_request(FLOATS[:-1]),
        "bytes left over": binary_request(FLOATS + b"\0"),
        "bytes of FP16": binary_request(np.float16([1, 2]).tobytes()),
        "size too small": binary_request(FLOATS, parameters={"binary_data_size": 4}),
        "size a string": binary_request(FLOATS, parameters={"binary_data_size": "8"}),
        "no bytes": json_request(tensor(parameters={"binary_data_size": 8})),
    },
    ("empty", 400, "send at least one"): {
        "no rows": json_request(tensor(shape=[0, 2], data=[])),
        "no rows in no bytes": binary_request(b"", shape=[0, 2]),
        "no raw bytes": raw_request(b""),
    },
    ("too_many_rows", 413, f"at most {MAX_ROWS}"): {
        "too many rows": json_request(tensor(shape=[9, 2], data=[0] * 18)),
        "rows beyond 64 bits": json_request(tensor(shape=[10**30, 2])),
        "too many rows in raw bytes": raw_request(FLOATS * 9),
    },
    ("not_finite", 400, FINITE): {
        "NaN in bytes": binary_request(np.float32([1, np.nan]).tobytes()),
        "NaN in raw bytes": raw_request(np.float32([1, np.nan]).tobytes()),
        "infinity in FP16": binary_request(np.float16([1, np.inf]).tobytes(), datatype="FP16"),
        "beyond float32": json_request(tensor(data=[1, 1e39])),
        "beyond float32 in bytes": binary_request(np.float64([1e39, 1]).tobytes(), datatype="FP64"),
    },
    ("not_finite", 400, "100000 is beyond FP16"): {
        "FP16": json_request(tensor(datatype="FP16", data=[1, 100000])),
    },
    ("not_finite", 400, "1e+39 is beyond FP32"): {
        "FP32": json_request(tensor(data=[[1, 1e39]])),
    },
    ("wrong_type", 400, "300 is no UINT8"): {
        "a byte too large": json_request(tensor(datatype="UINT8", data=[300, -1.5])),
    },
    ("wrong_type", 400, "-1.5 is no UINT8"): {
        "a negative fraction": json_request(tensor(datatype="UINT8", data=[3, -1.5])),
    },
    ("wrong_type", 400, "0.5 is no INT64; expected whole numbers from -9223372036854775808"): {
        "a fraction": json_request(tensor(datatype="INT64", data=[[2**62, 0.5]])),
    },
    ("wrong_type", 400, "9223372036854775808 is no INT64"): {
        "one more than INT64 holds": json_request(tensor(datatype="INT64", data=[[2**63, 0]])),
    },
    ("wrong_output", 400, "only label, probabilities, depth_run"): {
        "unknown output": json_request(tensor(), outputs=[{"name": "labels"}]),
    },
    ("no_router", 400, "small has no router"): {
        "router on": json_request(tensor(), parameters={"router": "on"}),
        "router at a risk": json_request(tensor(), parameters={"router": 0.01}),
    },
}


@pytest.mark.parametrize(
    ("request_", "code", "status", "says"),
    [
        pytest.param(request, *expected, id=name)
        for expected, requests in BAD_REQUESTS.items()
        for name, request in requests.items()
    ],
)
def test_a_bad_request_is_told_what_was_expected(
    protocol: OpenInference,
    decode: Decode,
    request_: RawRequest,
    code: str,
    status: int,
    says: str,
) -> None:
    with pytest.raises(InputError) as caught:
        decode(request_)
    reply = protocol.refuse(caught.value)
    error = json.loads(reply.body)["error"]
    assert (caught.value.code, reply.status) == (code, status)
    assert error.startswith(f"[{code}] ")
    assert says in error


# --- anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
sizes = st.fixed_dictionaries({}, optional={"binary_data_size": json_values | st.just(8)})
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("inputs") | json_values,
        "datatype": st.sampled_from(list(DTYPES)) | json_values,
        "shape": st.just([1, 2]) | st.lists(st.integers(-2, 9), max_size=3) | json_values,
        "parameters": sizes | json_values,
        "data": st.just([1, 2]) | json_values,
    },
)
messages = st.fixed_dictionaries(
    {"inputs": st.lists(st.builds(lambda changes: tensor(**changes), tensors), max_size=2)},
    optional=dict.fromkeys(("id", "parameters", "outputs"), json_values),
)
bodies = st.binary() | st.builds(
    lambda message, tail: json.dumps(message).encode() + tail, messages, st.binary(max_size=16)
)
lengths = st.integers(-1, 200).map(str) | st.text(max_size=5)


@given(body=bodies | st.none(), length=st.none() | st.just("JSON") | lengths)
def test_no_request_raises_anything_but_an_input_error(
    protocol: OpenInference, engine: Engine, body: bytes | None, length: str | None
) -> None:
    if length == "JSON":  # the length that such a body would have
        length = str((body or b"").rfind(b"}") + 1)
    request = RawRequest(body, {} if length is None else {HEADER_LENGTH.lower(): length})
    try:
        parsed = protocol.decode(request)
        prediction = engine.run(engine.check(parsed.rows))
    except InputError as error:
        assert protocol.refuse(error).body
    else:
        assert parsed.encode(answer_of(prediction, engine.off, TASK)).status == 200


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(float32s, float32s), min_size=1, max_size=MAX_ROWS))
def test_float32_survives_text_and_bytes(decode: Decode, rows: list[tuple[float, float]]) -> None:
    sent, shape = np.float32(rows), [len(rows), 2]
    text = json_request(tensor(shape=shape, data=rows))
    chunk = binary_request(sent.tobytes(), shape=shape)
    assert decode(text).tobytes() == decode(chunk).tobytes() == sent.tobytes()


def outcome(decode: Decode, request: RawRequest) -> object:
    try:
        return decode(request).tolist()
    except InputError as error:
        return error.code


@given(
    datatype=st.sampled_from([name for name in DTYPES if "INT" in name]),
    number=st.integers(-(2**65), 2**65) | st.integers(-300, 300) | st.floats(-1e20, 1e20),
)
@example(datatype="INT64", number=2**63)
@example(datatype="INT64", number=2**63 - 1)
@example(datatype="INT64", number=-(2**63) - 1)
@example(datatype="UINT64", number=2**64)
@example(datatype="INT64", number=float(2**62))
def test_json_holds_the_whole_numbers_that_the_datatype_does(
    decode: Decode, datatype: str, number: float
) -> None:
    limits = np.iinfo(DTYPES[datatype])
    fits = number == int(number) and int(limits.min) <= number <= int(limits.max)
    for data in ([1, number], [[1, number]]):
        found = outcome(decode, json_request(tensor(datatype=datatype, data=data)))
        assert found == ([[1, float(np.float32(number))]] if fits else "wrong_type")


@given(
    datatype=st.sampled_from(["FP16", "FP32", "FP64"]),
    numbers=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
)
def test_json_and_bytes_of_floats_are_answered_alike(
    decode: Decode, datatype: str, numbers: tuple[float, float]
) -> None:
    with np.errstate(over="ignore"):
        chunk = np.float64(numbers).astype(DTYPES[datatype]).tobytes()
    text = json_request(tensor(datatype=datatype, data=numbers))
    assert outcome(decode, text) == outcome(decode, binary_request(chunk, datatype=datatype))


@pytest.mark.parametrize(
    "wrong",
    [
        {"parameters": {"binary_data_output": "no"}},
        {"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        {"parameters": {"router_measure": "speed"}},
    ],
)
def test_a_parameter_of_another_type_is_refused_before_anything_runs(
    protocol: OpenInference, wrong: dict[str, object]
) -> None:
    body = json.dumps({"inputs": [tensor()], **wrong}).encode()
    with pytest.raises(InputError) as refused:
        protocol.decode(RawRequest(body, {}))
    assert refused.value.code == "invalid_parameter"
