"""Texts in every protocol: answered as their tokens are; errors name the row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import texts
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from small_project import REORDERED
from tokenizing import LONGEST, taking_texts, text_input, tokenizer

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, InputError
from skipserve.hosts.metadata import model_metadata
from skipserve.preprocessing.text import LONGEST_TEXT, Texts
from skipserve.protocols.messages import JSON, RawRequest, Reply
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.protocols.oip_schemas import oip
from skipserve.protocols.oip_values import BYTES
from skipserve.protocols.text_bound import LARGEST_REQUEST
from skipserve.runtime.engine import Engine
from skipserve.runtime.inputs import Inputs
from skipserve.runtime.rows import Rows
from skipserve.service.service import Service

SENT = ["A great film", "dull", "the films, very very great"]
PAIRS = [["great film", "dull"], {"text": "a", "text_pair": "the film"}, {"text": "dull"}]
IS_JSON = {"content-type": JSON}


@pytest.fixture(scope="module")
def taking(texts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    artifact = open_artifact(texts.build(texts_root, "masked"))
    return taking_texts(artifact, tmp_path_factory.mktemp("taking"))


@pytest.fixture(scope="module")
def engine(taking: Artifact) -> Engine:
    return Engine(taking, provider="cpu")


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, ServingConfig(max_rows=8))


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


@pytest.mark.parametrize("values", [SENT, PAIRS, [*SENT, *PAIRS]], ids=["texts", "pairs", "both"])
def test_texts_are_answered_as_their_tokens_are(service: Service, values: list[Any]) -> None:
    expected = told(ask(service, {"inputs": tokens(values)}))["outputs"]
    assert told(ask(service, {"inputs": values}))["outputs"] == expected
    assert told(ask(service, {"instances": values}))["predictions"] == expected
    assert told(by_column(service, values))["outputs"] == expected


def tensor(data: list[Any], *shape: int) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": BYTES, "shape": shape, "data": data}]}


def test_open_inference_takes_bytes_in_json(service: Service) -> None:
    expected = told(ask(service, {"inputs": SENT}))["outputs"]
    for sent in (tensor(SENT, 3), tensor(SENT, 3, 1), tensor([[one] for one in SENT], 3, 1)):
        answer = outputs(told(ask(service, sent)))
        assert np.reshape(answer["probabilities"], (3, 3)).tolist() == probabilities(expected)
    pair = told(ask(service, {"inputs": [["great film", "dull"]]}))["outputs"]
    answer = outputs(told(ask(service, tensor(["great film", "dull"], 1, 2))))
    assert [answer["probabilities"]] == probabilities(pair)


def test_open_inference_takes_bytes_in_binary(service: Service) -> None:
    elements = [one.encode() for one in SENT]
    packed = b"".join(len(one).to_bytes(4, "little") + one for one in elements)
    said = {"name": "text", "datatype": BYTES, "shape": [3]}
    header = json.dumps(
        {"inputs": [{**said, "parameters": {"binary_data_size": len(packed)}}]}
    ).encode()
    answer = ask(service, header + packed, {HEADER_LENGTH.lower(): str(len(header))})
    expected = told(ask(service, {"inputs": SENT}))["outputs"]
    assert np.reshape(outputs(told(answer))["probabilities"], (3, 3)).tolist() == probabilities(
        expected
    )
    for damaged in (packed[:-1], packed + b"x", b"\xff\xff\xff\xff" + packed[4:]):
        header = json.dumps(
            {"inputs": [{**said, "parameters": {"binary_data_size": len(damaged)}}]}
        ).encode()
        reply = ask(service, header + damaged, {HEADER_LENGTH.lower(): str(len(header))})
        assert reply.status == 400 and "four bytes of length" in str(reply.body)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_what_tritons_client_sends_is_taken(
    service: Service, binary: bool, shape: tuple[int, ...]
) -> None:
    sent = triton.InferInput("text", shape, "BYTES")
    sent.set_data_from_numpy(np.array(SENT, object).reshape(shape), binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([sent])
    headers = {} if length is None else {HEADER_LENGTH.lower(): str(length)}
    reply = ask(service, bytes(body), headers)
    made = reply.headers.get(HEADER_LENGTH)
    assert isinstance(reply.body, bytes)
    parsed = triton.InferenceServerClient.parse_response_body(
        reply.body, header_length=None if made is None else int(made)
    )
    expected = probabilities(told(ask(service, {"inputs": SENT}))["outputs"])
    np.testing.assert_array_equal(parsed.as_numpy("probabilities"), np.float32(expected))


def test_a_body_of_bytes_alone_is_one_text(service: Service) -> None:
    reply = ask(service, SENT[0].encode(), {HEADER_LENGTH.lower(): "0"})
    length = int(reply.headers[HEADER_LENGTH])
    assert reply.status == 200 and isinstance(reply.body, bytes)
    probability = json.loads(reply.body[:length])["outputs"][1]
    assert probability["shape"] == [1, 3]
    (expected,) = probabilities(told(ask(service, {"inputs": SENT[:1]}))["outputs"])
    assert np.float32(expected).tobytes() in reply.body[length:]


@pytest.mark.parametrize(
    "text", ["instances", "inputs", 'say "inputs": [{ "name": 1', '"instances": []', "input_ids"]
)
def test_what_a_text_says_chooses_no_protocol(service: Service, text: str) -> None:
    expected = told(ask(service, {"inputs": tokens([text])}))["outputs"]
    assert told(ask(service, {"inputs": [text]}))["outputs"] == expected
    assert told(ask(service, {"inputs": [{"text": text}]}))["outputs"] == expected
    assert told(ask(service, {"instances": [text]}))["predictions"] == expected


BAD: list[tuple[list[Any], int, str, str]] = [
    (["a", 3], 1, "wrong_type", "row 1 is a number; expected a text, or a pair of texts"),
    (["a", None, 3], 1, "wrong_type", "row 1 is null"),
    ([["a", "b", "c"]], 0, "wrong_type", "row 0 is a list of 3"),
    ([["a", 2]], 0, "wrong_type", "row 0 is a list of 2"),
    (["a", {"text_pair": "b"}], 1, "wrong_type", "an object with 'text_pair'"),
    ([{"text": None, "text_pair": "b"}], 0, "wrong_type", "an object with 'text', 'text_pair'"),
    (["a", {"text": "b", "title": "c"}], 1, "wrong_type", "an object with 'text', 'title'"),
    (["a", "b" * (LONGEST_TEXT + 1)], 1, "too_long", "more than the 262,144 that are read"),
    (["a", ["b", "b" * (LONGEST_TEXT + 1)]], 1, "too_long", "row 1 has 262,145 characters"),
]


@pytest.mark.parametrize(("values", "row", "code", "says"), BAD)
def test_a_bad_value_names_its_row_and_harms_no_neighbour(
    service: Service, values: list[Any], row: int, code: str, says: str
) -> None:
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    bad = RawRequest(json.dumps({"inputs": values}).encode(), IS_JSON)
    first, reply, last = service.answer([good, bad, good])
    assert told(first)["outputs"] == told(last)["outputs"]
    alone = probabilities(told(ask(service, {"inputs": SENT}))["outputs"])
    np.testing.assert_allclose(probabilities(told(first)["outputs"]), alone, atol=REORDERED)
    error = json.loads(reply.body)["error"]
    assert reply.status == (413 if code == "too_long" else 400)
    assert (error["code"], error["row"]) == (code, row)
    assert says in error["message"]
    for refused in (ask(service, {"instances": values}), by_column(service, values)):
        assert f"[{code}]" in json.loads(refused.body)["error"]


EIGHTH = LARGEST_REQUEST // 8


@pytest.mark.parametrize("value", ["a" * EIGHTH, ["a" * (EIGHTH - 2), "éé"]], ids=["text", "pair"])
def test_the_texts_of_a_request_have_a_bound_together(service: Service, value: Any) -> None:
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    most = RawRequest(json.dumps({"inputs": [value] * 8}).encode(), IS_JSON)
    more = [*[value] * 7, "a" * (EIGHTH + 1)]
    large = RawRequest(json.dumps({"inputs": more}).encode(), IS_JSON)
    first, reply, last = service.answer([good, large, most])
    assert (first.status, reply.status, last.status) == (200, 413, 200)
    error = json.loads(reply.body)["error"]
    assert error["code"] == "too_long"
    assert error["message"].startswith("the texts have more than 2,000,000 characters together")
    assert by_column(service, more).status == 413


def test_more_texts_than_a_request_may_have_are_read_from_a_file(prepare: Texts) -> None:
    made = prepare(["a " * 100_000] * (LARGEST_REQUEST // 200_000 + 1))
    assert made["input_ids"].shape == (11, LONGEST)


class RunsOut(Inputs):
    """Has no memory left for one text."""

    def prepare(self, values: Sequence[object]) -> Rows:
        if "too much" in values:
            raise MemoryError("0xdead")
        return super().prepare(values)


def test_a_value_that_preprocessing_fails_on_harms_no_neighbour(
    taking: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(taking, provider="cpu")
    engine.inputs = RunsOut(taking)
    service = Service(engine, ServingConfig(max_rows=8))
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    bad = RawRequest(json.dumps({"inputs": ["a", "too much"]}).encode(), IS_JSON, id="the bad one")
    first, reply, last = service.answer([good, bad, good])
    assert told(first)["outputs"] == told(last)["outputs"]
    assert len(told(first)["outputs"]) == len(SENT)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (500, "internal")
    assert b"0xdead" not in bytes(reply.body)
    (record,) = [one for one in caplog.records if one.exc_info]
    assert record.__dict__["fields"] == {"request_id": "the bad one"}
    assert "0xdead" in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": []}, 400, "inputs holds no row"),
        ({"inputs": "great"}, 400, '"inputs" must be a list; each row is a text'),
        ({"inputs": ["a"] * 9}, 413, "at most 8"),
        ({"inputs": ["a"], "input": 3}, 400, "unknown field"),
        ({"inputs": {"attention_mask": [[1]]}}, 400, "'input_ids' of masked is missing"),
        (tensor([], 0), 400, "no row"),
        (tensor(["a"], 2), 400, "a list of 2 strings"),
        (tensor(["a", 3], 2), 400, "expected strings"),
        (tensor(["a"] * 3, 1, 3), 400, "expected [rows] or [rows, 1] or [rows, 2]"),
        (tensor(["a"] * 9, 9), 413, "at most 8"),
    ],
)
def test_a_request_of_another_shape_is_refused(
    service: Service, body: dict[str, Any], status: int, says: str
) -> None:
    reply = ask(service, body)
    assert reply.status == status
    assert says in json.dumps(json.loads(reply.body), ensure_ascii=False).replace('\\"', '"')


def test_bytes_that_are_no_utf8_are_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="row 1 is no text in UTF-8") as refused:
        engine.inputs.prepare([b"fine", b"\xff"])
    assert refused.value.row == 1
    with pytest.raises(InputError, match="row 0 is no text in UTF-8"):
        engine.inputs.prepare(["\ud800"])


def test_a_network_of_numbers_takes_no_texts(engine: Engine, texts_root: Path) -> None:
    bare = Engine(open_artifact(texts.build(texts_root, "bare")), provider="cpu")
    with pytest.raises(InputError, match="bare takes tensors alone"):
        bare.inputs.prepare(["a text"])


def test_python_takes_texts_too(engine: Engine) -> None:
    arrays = {name: np.array(rows) for name, rows in tokens(SENT).items()}
    expected = engine.predict(arrays).answers
    np.testing.assert_array_equal(engine.predict(SENT).answers, expected)


def test_another_tokenizer_is_another_artifact(taking: Artifact, tmp_path: Path) -> None:
    assert taking.hashes("onnx", "fp32")["tokenizer.json"]
    assert taking.hashes("torchscript", "fp32") == {}
    for entry in taking.directory.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace('"dull"', '"drab"'))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not the file the manifest"):
        open_artifact(tmp_path)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: named in the manifest but missing"):
        open_artifact(tmp_path)


def test_schemas_and_metadata_say_it(taking: Artifact, service: Service) -> None:
    manifest = taking.manifest
    assert model_metadata(manifest, ["1"])["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]}
    ]
    for spoken in (native(manifest, 8), v1(manifest, 8), oip(manifest, 8)):
        schema = jsonschema.Draft202012Validator(spoken.requests[JSON])
        schema.validate(spoken.example)
        assert "a great film" in json.dumps(spoken.example)
        assert ask(service, spoken.example).status == 200
    takes = jsonschema.Draft202012Validator(native(manifest, 8).requests[JSON])
    for values in (SENT, PAIRS, tokens(SENT)):
        takes.validate({"inputs": values})
    for values in ([3], [["a"]], "great", [{"text_pair": "a"}]):
        assert not takes.is_valid({"inputs": values})


WORDS = [
    "great",
    "a",
    "FILMS",
    "dull",
    "[SEP]",
    "\n",
    "  ",
    ".",
    "é",
    "e\u0301",
    "漢",
    "\u200b",
    "x" * 300,
]


@given(st.lists(st.sampled_from(WORDS), max_size=60), st.sampled_from([" ", "\n", "", " . "]))
def test_the_beginning_of_a_long_text_gives_the_tokens_of_all_of_it(
    prepare: Texts, words: list[str], between: str
) -> None:
    text = between.join(words) * 3
    expected = tokens([text])
    assert {name: made.tolist() for name, made in prepare([text]).items()} == expected


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    folder = tmp_path_factory.mktemp("tokens")
    return Texts(text_input(folder), folder)


def test_a_long_text_takes_no_longer_than_its_beginning(prepare: Texts) -> None:
    class Counting(str):
        """Tells how much of it was asked for."""

        asked = 0

        def __getitem__(self, place: Any) -> str:
            Counting.asked = max(Counting.asked, place.stop)
            return super().__getitem__(place)

    text = "great film " * 20_000
    prepare([Counting(text)])
    assert 0 < Counting.asked < 200
    for special in (True, False):
        Counting.asked = 0
        (found,) = prepare.tokens([Counting(text)], special)
        assert 0 < Counting.asked < 200
        own = tokenizer()
        own.enable_truncation(LONGEST)
        expected = own.encode(text, add_special_tokens=special)
        assert [(one.id, one.start or 0, one.stop or 0) for one in found] == [
            (one, *place) for one, place in zip(expected.ids, expected.offsets, strict=True)
        ]
