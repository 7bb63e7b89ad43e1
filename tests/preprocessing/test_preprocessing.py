"""Texts in every protocol: answered as their tokens are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import texts
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from text_requests import (
    PAIRS,
    SENT,
    ask,
    by_column,
    outputs,
    probabilities,
    tensor,
    tokens,
    told,
)
from tokenizing import LONGEST, tokenizer

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.errors import ArtifactError, InputError
from skipserve.hosts.metadata import model_metadata
from skipserve.preprocessing.text import Texts
from skipserve.protocols.messages import JSON
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.protocols.oip_schemas import oip
from skipserve.protocols.oip_values import BYTES
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service


@pytest.mark.parametrize("values", [SENT, PAIRS, [*SENT, *PAIRS]], ids=["texts", "pairs", "both"])
def test_texts_are_answered_as_their_tokens_are(service: Service, values: list[Any]) -> None:
    expected = told(ask(service, {"inputs": tokens(values)}))["outputs"]
    assert told(ask(service, {"inputs": values}))["outputs"] == expected
    assert told(ask(service, {"instances": values}))["predictions"] == expected
    assert told(by_column(service, values))["outputs"] == expected


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
    answer = ask(service, header + packed, {HEADER_LENGTH: str(len(header))})
    expected = told(ask(service, {"inputs": SENT}))["outputs"]
    assert np.reshape(outputs(told(answer))["probabilities"], (3, 3)).tolist() == probabilities(
        expected
    )
    for damaged in (packed[:-1], packed + b"x", b"\xff\xff\xff\xff" + packed[4:]):
        header = json.dumps(
            {"inputs": [{**said, "parameters": {"binary_data_size": len(damaged)}}]}
        ).encode()
        reply = ask(service, header + damaged, {HEADER_LENGTH: str(len(header))})
        assert reply.status == 400 and "four bytes of length" in str(reply.body)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_what_tritons_client_sends_is_taken(
    service: Service, binary: bool, shape: tuple[int, ...]
) -> None:
    sent = triton.InferInput("text", shape, "BYTES")
    sent.set_data_from_numpy(np.array(SENT, object).reshape(shape), binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([sent])
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    reply = ask(service, bytes(body), headers)
    made = reply.headers.get(HEADER_LENGTH)
    assert isinstance(reply.body, bytes)
    parsed = triton.InferenceServerClient.parse_response_body(
        reply.body, header_length=None if made is None else int(made)
    )
    expected = probabilities(told(ask(service, {"inputs": SENT}))["outputs"])
    np.testing.assert_array_equal(parsed.as_numpy("probabilities"), np.float32(expected))


def test_a_body_of_bytes_alone_is_one_text(service: Service) -> None:
    reply = ask(service, SENT[0].encode(), {HEADER_LENGTH: "0"})
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


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_told_of_all_of_a_text_however_long(prepare: Texts, special: bool) -> None:
    # Clients count them, to cut a document into parts that fit.
    for words in (1, LONGEST, 20_000):
        text = "great film " * words
        (found,) = prepare.tokens([text], special)
        assert len(found) == 2 * words + 2 * special
        expected = tokenizer().encode(text, add_special_tokens=special)
        assert [(one.id, one.start or 0, one.stop or 0) for one in found] == [
            (one, *place) for one, place in zip(expected.ids, expected.offsets, strict=True)
        ]
    # A text is still cut where the network runs.
    assert prepare(["great film " * 20_000])["input_ids"].shape == (1, LONGEST)
