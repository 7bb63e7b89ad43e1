"""The native protocol: requests and replies."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native_requests import MAX_ROWS, Decode, request
from numpy.typing import NDArray
from signatures import spec, taking

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.native import NativeProtocol
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import check_rows
from skipserve.tasks import Classify

TASK = Classify(classes=2)

JSON = "application/json"


@pytest.mark.parametrize(
    "rows",
    [[[0.5, -0.25]], [[1, 2]], [[float(i), -0.0] for i in range(MAX_ROWS)], [[-3.4e38, 1e-45]]],
    ids=["one row", "integers", "as many rows as allowed", "ends of float32"],
)
def test_rows_arrive_as_float32(decode_native: Decode, rows: list[list[float]]) -> None:
    decoded = decode_native(request(rows))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, np.float32(rows))


@pytest.mark.parametrize(
    "parameters", [None, {}, {"router": None}, {"router": "off"}], ids=json.dumps
)
def test_full_depth_may_be_asked_for_or_left_unsaid(
    decode_native: Decode, parameters: object
) -> None:
    assert decode_native(request([[1, 2]], parameters=parameters)).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", ["", JSON, "Application/JSON", "application/json; charset=utf-8"])
def test_json_by_any_spelling_of_its_content_type(decode_native: Decode, kind: str) -> None:
    assert decode_native(b'{"inputs": [[1, 2]]}', kind).tolist() == [[1, 2]]


def test_a_request_without_content_type_is_taken_for_json(native: NativeProtocol) -> None:
    parsed = native.decode(RawRequest(b'{"inputs": [[1, 2]]}', {}))
    assert parsed.rows["inputs"].tolist() == [[1, 2]]


def test_a_bytearray_is_a_body_too(native: NativeProtocol) -> None:
    body = bytearray(b'{"inputs": [[1, 2]]}')
    assert native.decode(RawRequest(body, {})).rows["inputs"].shape == (1, 2)


def test_a_byte_order_mark_is_no_part_of_the_json(decode_native: Decode) -> None:
    assert decode_native(b'\xef\xbb\xbf{"inputs": [[1, 2]]}').tolist() == [[1, 2]]


def test_integers_beyond_64_bits_are_numbers(decode_native: Decode) -> None:
    assert decode_native(request([[2**70, -(2**70)]])).tolist() == [[2.0**70, -(2.0**70)]]


def test_rows_of_higher_rank(artifact: Artifact) -> None:
    images = NativeProtocol(taking(artifact, spec("inputs", "float32", 2, 3)), MAX_ROWS)
    rows = np.arange(12.0).reshape(2, 2, 3)
    decoded = images.decode(RawRequest(request(rows.tolist()), {})).rows["inputs"]
    np.testing.assert_array_equal(decoded, rows)
    with pytest.raises(InputError, match="rows of 2×3 numbers each") as caught:
        images.decode(RawRequest(request([[[1, 2, 3], [4, 5]]]), {}))
    assert (caught.value.code, caught.value.row) == ("wrong_shape", 0)


def test_the_reply_says_label_probabilities_and_depth_run(
    native: NativeProtocol, engine: Engine, rows: NDArray[np.float32]
) -> None:
    prediction = engine.predict(rows[:3])
    reply = native.encode(answer_of(prediction, engine.off, TASK))
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)
    body = json.loads(reply.body)
    outputs = body.pop("outputs")
    assert body == {"model": "small", "depth": 4, "router": "off"}
    assert [output["label"] for output in outputs] == prediction.labels.tolist()
    assert [output["depth_run"] for output in outputs] == [4, 4, 4]
    probabilities = np.float32([output["probabilities"] for output in outputs])
    np.testing.assert_array_equal(probabilities, prediction.answers)


IDS, MASK = spec("input_ids", "int16", "length"), spec("attention_mask", "bool", "length")
NUMBER = spec("a number", "float32")


@pytest.fixture(scope="module")
def several(artifact: Artifact) -> NativeProtocol:
    return NativeProtocol(taking(artifact, IDS, MASK, NUMBER), MAX_ROWS)


def texts(**changes: object) -> dict[str, object]:
    rows = {"input_ids": [[5, 7], [-1, 2]], "attention_mask": [[1, True], [1, 0]]}
    return rows | {"a number": [0.5, 1]} | changes


def test_several_inputs_go_by_their_names(several: NativeProtocol, artifact: Artifact) -> None:
    parsed = several.decode(RawRequest(request(texts()), {}))
    rows = check_rows(parsed.rows, taking(artifact, IDS, MASK, NUMBER).signature, "small")
    found = {name: (str(one.dtype), one.tolist()) for name, one in rows.tensors.items()}
    assert found == {
        "input_ids": ("int16", [[5, 7], [-1, 2]]),
        "attention_mask": ("bool", [[True, True], [True, False]]),
        "a number": ("float32", [0.5, 1.0]),
    }


def test_the_only_input_may_be_named(decode_native: Decode) -> None:
    assert decode_native(request({"inputs": [[1, 2], [3, 4]]})).tolist() == [[1, 2], [3, 4]]


NAMES = "'input_ids', 'attention_mask', 'a number'"
# What is wrong: (rows, code, row, what the message says)
BAD_TEXTS: dict[str, tuple[object, str, int | None, str]] = {
    "no names": ([[5, 7]], "wrong_type", None, '"input_ids": rows of length whole numbers (int16'),
    "one missing": ({"input_ids": [[1]], "a number": [1]}, "missing_input", None, NAMES),
    "one unknown": (texts(more=[1]), "unknown_input", None, f"small takes {NAMES}"),
    "no rows": (texts(input_ids=[]), "empty", None, "send at least one"),
    "an empty row": (texts(input_ids=[[1], []]), "wrong_shape", 1, '"input_ids" must be a list'),
    "a fraction": (texts(input_ids=[[1, 2], [3, 0.5]]), "wrong_type", 1, "$.inputs.input_ids[1]"),
    "too large": (texts(input_ids=[[1, 2], [1, 2**15]]), "wrong_type", 1, "`int` <= 32767"),
    "far too large": (texts(input_ids=[[2**70, 2]]), "wrong_type", 0, "`int` <= 32767"),
    "a mask of 2": (texts(attention_mask=[[1, 2]]), "wrong_type", 0, "rows of length booleans"),
    "no number": (texts(**{"a number": [1, "x"]}), "wrong_type", 1, '"a number" must be a list'),
    "rows of two lengths": (
        texts(input_ids=[[1, 2], [1, 2, 3]]),
        "wrong_shape",
        1,
        "row 1 of 'input_ids' has length 3, row 0 has length 2; the rows of one request have one",
    ),
    "too many rows": (texts(input_ids=[[1]] * 9), "too_many_rows", None, f"at most {MAX_ROWS}"),
}


@pytest.mark.parametrize(("rows", "code", "row", "says"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_input_is_told_which_it_is(
    several: NativeProtocol, rows: object, code: str, row: int | None, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        several.decode(RawRequest(request(rows), {}))
    assert (caught.value.code, caught.value.row) == (code, row)
    assert says in caught.value.message


# What only shows once every input is read: (rows, code, row, what the message says)
UNEQUAL: dict[str, tuple[object, str, int | None, str]] = {
    "rows": (texts(**{"a number": [1]}), "wrong_shape", None, "'a number' holds 1 rows"),
    "lengths": (
        texts(attention_mask=[[1, 1, 1], [1, 1, 1]]),
        "wrong_shape",
        None,
        "length is 3 in 'attention_mask' and 2 in 'input_ids'",
    ),
    "beyond float32": (
        texts(**{"a number": [1, 1e39]}),
        "not_finite",
        1,
        "row 1 of 'a number' holds NaN, an infinity or a number beyond float32",
    ),
}


@pytest.mark.parametrize(("rows", "code", "row", "says"), UNEQUAL.values(), ids=UNEQUAL)
def test_inputs_that_do_not_go_together_are_told_which_they_are(
    several: NativeProtocol,
    artifact: Artifact,
    rows: object,
    code: str,
    row: int | None,
    says: str,
) -> None:
    parsed = several.decode(RawRequest(request(rows), {}))
    with pytest.raises(InputError) as caught:
        check_rows(parsed.rows, taking(artifact, IDS, MASK, NUMBER).signature, "small")
    assert (caught.value.code, caught.value.row) == (code, row)
    assert says in caught.value.message


def test_classes_that_have_names_are_told_by_them(engine: Engine, rows: Any) -> None:
    task = Classify(classes=2, names=("left", "right"))
    native = NativeProtocol(engine.manifest.model_copy(update={"task": task}), MAX_ROWS)
    prediction = engine.predict(rows)
    outputs = json.loads(native.encode(answer_of(prediction, engine.off, task)).body)["outputs"]
    assert [output["label"] for output in outputs] == prediction.labels.tolist()
    assert {output["name"] for output in outputs} == {"left", "right"}
    assert all(output["name"] == task.names[output["label"]] for output in outputs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
near_misses = st.fixed_dictionaries(
    {}, optional={"inputs": json_values, "parameters": json_values, "id": json_values}
)
damaged = st.builds(
    lambda start, noise, cut: request([[1.5, 2]])[:start] + noise + request([[1.5, 2]])[cut:],
    st.integers(0, 24),
    st.binary(max_size=6),
    st.integers(0, 24),
)


@given(rows=json_values | st.fixed_dictionaries(dict.fromkeys(texts(), json_values)))
def test_no_inputs_raise_anything_but_an_input_error(
    several: NativeProtocol, artifact: Artifact, rows: object
) -> None:
    try:
        parsed = several.decode(RawRequest(request(rows), {}))
        check_rows(parsed.rows, taking(artifact, IDS, MASK, NUMBER).signature, "small")
    except InputError as error:
        assert error.message


@given(body=st.binary() | damaged | st.builds(lambda v: json.dumps(v).encode(), near_misses))
@example(body=b"\x00")
def test_no_body_raises_anything_but_an_input_error(decode_native: Decode, body: bytes) -> None:
    try:
        rows = decode_native(body)
    except InputError as error:
        assert error.code
        assert error.message
    else:
        assert rows.shape[1:] == (2,)
        assert np.isfinite(rows).all()


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(float32s, float32s), min_size=1, max_size=MAX_ROWS))
def test_float32_survives_the_text(decode_native: Decode, rows: list[tuple[float, float]]) -> None:
    assert decode_native(request(rows)).tobytes() == np.float32(rows).tobytes()
