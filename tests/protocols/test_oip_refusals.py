"""The Open Inference Protocol: what is refused, and that nothing but an input error is raised."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oip_requests import (
    FLOATS,
    MAX_ROWS,
    TASK,
    Decode,
    binary_request,
    json_request,
    raw_request,
    tensor,
)

from skipserve.errors import InputError
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.oip import OpenInference
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.protocols.oip_tensors import DTYPES
from skipserve.runtime.engine import Engine

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
        "no JSON": RawRequest(b"hello", {HEADER_LENGTH: "5"}),
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
        "a form": RawRequest(None, {HEADER_LENGTH: "0"}),
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
    open_inference: OpenInference,
    decode_oip: Decode,
    request_: RawRequest,
    code: str,
    status: int,
    says: str,
) -> None:
    with pytest.raises(InputError) as caught:
        decode_oip(request_)
    reply = open_inference.refuse(caught.value)
    error = json.loads(reply.body)["error"]
    assert (caught.value.code, reply.status) == (code, status)
    assert error.startswith(f"[{code}] ")
    assert says in error


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
    open_inference: OpenInference, engine: Engine, body: bytes | None, length: str | None
) -> None:
    if length == "JSON":  # the length that such a body would have
        length = str((body or b"").rfind(b"}") + 1)
    request = RawRequest(body, {} if length is None else {HEADER_LENGTH: length})
    try:
        parsed = open_inference.decode(request)
        prediction = engine.run(engine.check(parsed.rows))
    except InputError as error:
        assert open_inference.refuse(error).body
    else:
        assert parsed.encode(answer_of(prediction, engine.off, TASK)).status == 200


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(float32s, float32s), min_size=1, max_size=MAX_ROWS))
def test_float32_survives_text_and_bytes(
    decode_oip: Decode, rows: list[tuple[float, float]]
) -> None:
    sent, shape = np.float32(rows), [len(rows), 2]
    text = json_request(tensor(shape=shape, data=rows))
    chunk = binary_request(sent.tobytes(), shape=shape)
    assert decode_oip(text).tobytes() == decode_oip(chunk).tobytes() == sent.tobytes()


def outcome(decode_oip: Decode, request: RawRequest) -> object:
    try:
        return decode_oip(request).tolist()
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
    decode_oip: Decode, datatype: str, number: float
) -> None:
    limits = np.iinfo(DTYPES[datatype])
    fits = number == int(number) and int(limits.min) <= number <= int(limits.max)
    for data in ([1, number], [[1, number]]):
        found = outcome(decode_oip, json_request(tensor(datatype=datatype, data=data)))
        assert found == ([[1, float(np.float32(number))]] if fits else "wrong_type")


@given(
    datatype=st.sampled_from(["FP16", "FP32", "FP64"]),
    numbers=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
)
def test_json_and_bytes_of_floats_are_answered_alike(
    decode_oip: Decode, datatype: str, numbers: tuple[float, float]
) -> None:
    with np.errstate(over="ignore"):
        chunk = np.float64(numbers).astype(DTYPES[datatype]).tobytes()
    text = json_request(tensor(datatype=datatype, data=numbers))
    assert outcome(decode_oip, text) == outcome(
        decode_oip, binary_request(chunk, datatype=datatype)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"parameters": {"binary_data_output": "no"}},
        {"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        {"parameters": {"router_measure": "speed"}},
    ],
)
def test_a_parameter_of_another_type_is_refused_before_anything_runs(
    open_inference: OpenInference, wrong: dict[str, object]
) -> None:
    body = json.dumps({"inputs": [tensor()], **wrong}).encode()
    with pytest.raises(InputError) as refused:
        open_inference.decode(RawRequest(body, {}))
    assert refused.value.code == "invalid_parameter"
