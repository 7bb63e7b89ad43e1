"""Clients of text-embeddings-inference, OpenAI and vLLM, at a real service of models of texts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import texts
from huggingface_hub import InferenceClient
from msgspec.structs import replace as replace_struct
from running import Running, serving
from tokenizing import taking_texts

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import write_manifest
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import HANDLER
from skipserve.certification.certifying import certify_artifact
from skipserve.hosts.torchserve.packaging import package
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.rerank import Ranking
from skipserve.protocols.tei import Rerank
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction
from skipserve.safety.switch import ControlState, Switch
from skipserve.service.service import Service
from skipserve.slices import Slices
from skipserve.tasks import Score, Units

pytestmark = pytest.mark.server
SENT = ["a great film", "dull", "the very very great films"]
KINDS = {"masked": "classify", "vectors": "embed", "pairs": "score"}


@pytest.fixture(scope="module")
def artifacts(texts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """One model of texts of each task, with a tokenizer."""
    made = {}
    for name in KINDS:
        folder = tmp_path_factory.mktemp("taking") / name
        folder.mkdir()
        made[name] = true_example(
            taking_texts(open_artifact(texts.build(texts_root, name)), folder)
        )
        certify_artifact(folder, texts.texts(400, texts.LENGTH, seed=1), [0.2], batch_size=64)
    return {name: open_artifact(one.directory) for name, one in made.items()}


def true_example(artifact: Artifact) -> Artifact:
    """The same with an example that is what its text becomes."""
    engine, example = Engine(artifact, provider="cpu"), artifact.manifest.example
    row = engine.inputs.prepare([example.value])
    answer = tuple(engine.run(row).answers[0].tolist())
    inputs = {name: tensor[0].tolist() for name, tensor in row.tensors.items()}
    told = example.model_copy(update={"inputs": inputs, "answer": answer})
    write_manifest(artifact.directory, artifact.manifest.model_copy(update={"example": told}))
    return artifact


@pytest.fixture(scope="module")
def engines(artifacts: dict[str, Artifact]) -> dict[str, Engine]:
    return {name: Engine(one, provider="cpu") for name, one in artifacts.items()}


@pytest.fixture(scope="module")
def server(
    artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("service")
    (root / "model_store").mkdir()
    for one in artifacts.values():
        package(
            one.directory,
            HANDLER,
            ServingConfig(risk=0.2, max_rows=8, evidence=0),
            root / "model_store",
        )
    with serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        yield client


def answers(engines: dict[str, Engine], name: str, values: list[Any]) -> Any:
    return engines[name].predict(values, risk=0.2).answers


def test_openais_client_embeds(server: Running, engines: dict[str, Engine]) -> None:
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none")
    expected = answers(engines, "vectors", SENT)
    made = client.embeddings.create(model="vectors", input=SENT)  # base64, as it asks by itself
    np.testing.assert_allclose([one.embedding for one in made.data], expected, atol=1e-6)
    assert (made.model, made.data[2].index) == ("vectors", 2)
    assert made.usage.prompt_tokens == 5 + 3 + 8
    floats = client.embeddings.create(model="vectors", input=SENT[0], encoding_format="float")
    np.testing.assert_allclose(floats.data[0].embedding, expected[0], atol=1e-6)
    raw = client.embeddings.with_raw_response.create(model="vectors", input=SENT)
    depth = [int(one) for one in raw.headers["x-skipserve-depth"].split(",")]
    assert depth == engines["vectors"].predict(SENT, risk=0.2).depth_run.tolist()
    assert raw.headers["x-skipserve-risk"] == "0.2"
    short = client.embeddings.create(model="vectors", input=SENT, dimensions=4)
    first = expected[:, :4] / np.linalg.norm(expected[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose([one.embedding for one in short.data], first, atol=1e-5)


@pytest.mark.parametrize(("risk", "told"), [(0.2, "0.2"), (None, None)])
def test_a_reply_names_its_risk_unless_it_ran_at_full_depth(
    engines: dict[str, Engine], risk: float | None, told: str | None
) -> None:
    engine, body = engines["vectors"], json.dumps({"inputs": SENT}).encode()
    service = Service(engine, ServingConfig(risk=risk, evidence=0, metrics=False))
    (reply,) = service.answer([RawRequest(body, {}, protocol="tei.embed")])
    depth = engine.predict(SENT, risk=risk).depth_run.tolist()
    assert reply.headers.get("x-skipserve-risk") == told
    assert reply.headers["x-skipserve-depth"] == ",".join(map(str, depth))


def test_openais_client_lists_models_and_its_errors_are_its_own(server: Running) -> None:
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none")
    assert {one.id for one in client.models.list()} == set(KINDS)
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="gpt", input="x")
    assert caught.value.code == "model_not_found"
    assert "only vectors" in caught.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="vectors", input=[["x"]])  # type: ignore[arg-type]
    assert refused.value.type == "invalid_request_error"
    assert "input must be a string" in refused.value.message


def test_hugging_faces_client_embeds_and_classifies(
    server: Running, engines: dict[str, Engine]
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    embedded = InferenceClient(f"{url}/embed", token="none").feature_extraction(SENT[0])
    np.testing.assert_allclose(embedded, answers(engines, "vectors", SENT[:1]), atol=1e-6)
    told = InferenceClient(f"{url}/predict", token="none").text_classification(SENT[0])
    best = answers(engines, "masked", SENT[:1])[0]
    (top,) = told if isinstance(told, list) else [told]
    assert top.label == texts.CLASSES[int(best.argmax())]
    assert top.score == pytest.approx(best.max(), abs=1e-6)


def test_predict_takes_texts_pairs_and_batches(
    client: httpx.Client, engines: dict[str, Engine]
) -> None:
    alone = client.post("/predict", json={"inputs": SENT[1]}).json()
    expected = answers(engines, "masked", [SENT[1]])[0]
    assert [one["label"] for one in alone] == [texts.CLASSES[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([one["score"] for one in alone], np.sort(expected)[::-1], atol=1e-6)
    assert list(alone[0]) == ["score", "label"]
    batch = client.post("/predict", json={"inputs": [[SENT[1]], [SENT[0], SENT[2]]]}).json()
    assert [one["label"] for one in batch[0]] == [one["label"] for one in alone]
    pair = client.post("/predict", json={"inputs": [SENT[0], SENT[2]]}).json()
    best = answers(engines, "masked", [[SENT[0], SENT[2]]])[0].max()
    assert pair[0]["score"] == pytest.approx(best, abs=1e-5)
    assert batch[1][0]["score"] == pytest.approx(best, abs=1e-5)
    tokens = client.post("/predict", json={"inputs": [2, 8, 4, 6, 3]}).json()
    again = client.post("/predict", json={"inputs": SENT[0]}).json()
    assert tokens[0]["score"] == pytest.approx(again[0]["score"], abs=1e-5)


def test_rerank_sorts_and_scores(client: httpx.Client, engines: dict[str, Engine]) -> None:
    asked = {"query": "great film", "texts": SENT}
    raw = client.post("/rerank", json={**asked, "raw_scores": True, "return_text": True})
    expected = answers(engines, "pairs", [["great film", one] for one in SENT])[:, 0]
    order = np.argsort(-expected).tolist()
    told = raw.json()
    assert [one["index"] for one in told] == order
    assert [one["text"] for one in told] == [SENT[i] for i in order]
    np.testing.assert_allclose([one["score"] for one in told], expected[order], atol=1e-5)
    assert len(raw.headers["x-skipserve-depth"].split(",")) == 3
    squashed = client.post("/rerank", json=asked).json()
    probabilities = 1 / (1 + np.exp(-expected[order]))
    np.testing.assert_allclose([one["score"] for one in squashed], probabilities, atol=1e-5)
    assert "text" not in squashed[0]


def test_hugging_faces_client_compares(server: Running, engines: dict[str, Engine]) -> None:
    client = InferenceClient(f"http://127.0.0.1:{server.port}/similarity", token="none")
    cosines = client.sentence_similarity(SENT[0], SENT[1:])
    vectors = answers(engines, "vectors", SENT)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, vectors[1:] @ vectors[0], atol=1e-5)


def test_documents_are_ranked(client: httpx.Client, engines: dict[str, Engine]) -> None:
    body = {"model": "pairs", "query": "great film", "documents": [*SENT[:2], {"text": SENT[2]}]}
    scores = answers(engines, "pairs", [["great film", one] for one in SENT])[:, 0]
    order = np.argsort(-scores).tolist()
    reply = client.post("/v1/rerank", json=body).json()
    assert [one["index"] for one in reply["results"]] == order
    assert [one["document"]["text"] for one in reply["results"]] == [SENT[i] for i in order]
    relevance = [one["relevance_score"] for one in reply["results"]]
    np.testing.assert_allclose(relevance, 1 / (1 + np.exp(-scores[order])), atol=1e-5)
    assert (reply["model"], reply["id"][:7]) == ("pairs", "rerank-")
    best = client.post("/v1/rerank", json={**body, "top_n": 1, "return_documents": False}).json()
    assert best["results"] == [{"index": order[0], "relevance_score": relevance[0]}]


@pytest.mark.parametrize(
    ("codec", "documents", "found"),
    [(Rerank, "texts", None), (Ranking, "documents", "results")],
)
def test_scores_of_any_size_are_ranked_as_certificates_rank_them(
    engines: dict[str, Engine], codec: type[Rerank | Ranking], documents: str, found: str | None
) -> None:
    scores = np.array([30, 60, 50, -60, -30, 0, 50], np.float32)[:, None]
    engine = engines["pairs"]
    names = [f"film {i}" for i in range(len(scores))]
    body = json.dumps({"query": "great", documents: names}).encode()
    asked = codec(engine.manifest, 8).decode(RawRequest(body, {}))
    rows = engine.inputs.prepare([["great", one] for one in names])
    depth = np.full(len(scores), engine.manifest.depth)
    ran = Prediction(None, scores, depth, np.zeros(len(scores), bool))
    answer = replace_struct(answer_of(ran, engine.off, engine.manifest.task), rows=rows)
    reply = json.loads(asked.encode(answer).body)
    told = reply if found is None else reply[found]
    assert [one["index"] for one in told] == [1, 2, 6, 0, 5, 4, 3]
    shown = [one.get("score", one.get("relevance_score")) for one in told]
    assert shown[-2:] == pytest.approx([np.exp(-30), np.exp(-60)], rel=1e-9)
    # A reply whose first documents are those of full depth is one that a certificate calls so.
    for top in range(1, len(scores)):
        place = np.empty_like(scores)
        place[[one["index"] for one in told], 0] = -np.arange(len(scores))
        units = Units(Score(tolerance=1, top=top), len(scores), np.zeros(len(scores), np.uint64))
        assert not units.differ(place, scores).any()


def test_a_ready_service_is_healthy(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200


def test_tokenize_and_info(client: httpx.Client) -> None:
    (tokens,) = client.post("/tokenize", json={"inputs": "A films", "model": "pairs"}).json()
    assert [one["text"] for one in tokens] == ["[CLS]", "A", "film", "s", "[SEP]"]
    assert tokens[0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (tokens[2]["id"], tokens[2]["start"], tokens[2]["stop"]) == (6, 2, 6)
    plain = {"inputs": ["a"], "add_special_tokens": False, "model": "pairs"}
    assert [one["id"] for one in client.post("/tokenize", json=plain).json()[0]] == [8]
    info = client.get("/info")
    assert info.status_code == 400
    assert "masked, pairs, vectors" in info.json()["error"]


def test_vllms_endpoints(client: httpx.Client, engines: dict[str, Engine]) -> None:
    made = client.post("/classify", json={"model": "masked", "input": SENT}).json()
    expected = answers(engines, "masked", SENT)
    np.testing.assert_allclose([one["probs"] for one in made["data"]], expected, atol=1e-5)
    assert made["data"][0]["label"] == texts.CLASSES[int(expected[0].argmax())]
    assert made["data"][0]["num_classes"] == 3
    assert made["id"].startswith("classify-")
    scored = client.post("/score", json={"model": "pairs", "text_1": "dull", "text_2": SENT}).json()
    pairs = answers(engines, "pairs", [["dull", one] for one in SENT])[:, 0]
    np.testing.assert_allclose([one["score"] for one in scored["data"]], pairs, atol=1e-5)
    pooled = {"model": "vectors", "input": SENT, "encoding_format": "base64"}
    (first, *_) = client.post("/pooling", json=pooled).json()["data"]
    vector = np.frombuffer(base64.b64decode(first["data"]), "<f4")
    np.testing.assert_allclose(vector, answers(engines, "vectors", SENT[:1])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/embed", {"inputs": 3}, 400, "inputs must be a string"),
        ("/embed", {"inputs": []}, 400, "holds no row"),
        ("/embed", {"inputs": "a", "dimensions": 999}, 400, "dimensions must lie in 1 … 16"),
        ("/embed", {"inputs": ["a"] * 9}, 413, "at most 8 are answered"),
        ("/embed", {"inputs": [[5, 10**30]]}, 400, ""),
        ("/embed", {}, 400, "inputs"),
        ("/embed", {"inputs": "a", "model": "pairs"}, 404, "only vectors"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 400, "send a batch as a list of lists"),
        ("/predict", {"inputs": "a", "raw_scores": True}, 400, "raw_scores are not known"),
        ("/rerank", {"query": "a", "texts": []}, 400, "holds no row"),
        ("/similarity", {"inputs": "a"}, 400, "Expected `object`, got `str` - at `$.inputs`"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": []}},
            400,
            "sentences holds no text",
        ),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents holds no text"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 400, "top_n must be"),
        ("/tokenize", {"inputs": "a"}, 400, 'name one in the field "model"'),
        ("/score", {"text_1": ["a", "b"], "text_2": ["a"]}, 400, "send one, or as many"),
        ("/pooling", {"input": "a"}, 400, "several models answer /pooling here (masked, pairs"),
        ("/", {"inputs": "a"}, 400, "several models answer /"),
    ],
)
def test_errors_are_one_line_in_the_familys_own_body(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    if path in ("/score", "/pooling", "/v1/rerank"):
        error = error["message"]
    else:
        assert set(reply.json()) == {"error", "error_type"}
    assert says in error
    assert "\n" not in error


def test_the_root_answers_as_the_named_model_does(client: httpx.Client) -> None:
    there = client.post("/embed", json={"inputs": SENT}).json()
    assert client.post("/", json={"inputs": SENT, "model": "vectors"}).json() == there
    assert client.get("/embed").status_code == 405


def test_the_document_has_them_and_its_examples_are_answered(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    paths = (
        "/embed",
        "/similarity",
        "/predict",
        "/rerank",
        "/v1/embeddings",
        "/classify",
        "/score",
    )
    paths += ("/v1/rerank",)
    for path in paths:
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        (example,) = content["examples"].values()
        body = document["components"]["examples"][example["$ref"].rpartition("/")[2]]["value"]
        assert client.post(path, json=body).status_code == 200, (path, json.dumps(body))


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("tei.embed", {"inputs": SENT}),
        ("openai.embeddings", {"model": "vectors", "input": SENT}),
        ("vllm.pooling", {"model": "vectors", "input": SENT}),
    ],
)
def test_a_header_says_which_slice_a_body_is_of(
    artifacts: dict[str, Artifact], tmp_path: Path, protocol: str, body: dict[str, Any]
) -> None:
    artifact = artifacts["vectors"]
    assert artifact.manifest.router is not None
    slices = Slices(parameter="tenant", values=("acme",))
    asked = {"slices": slices, "certificate": "earned", "risks": (0.2,)}
    router = artifact.manifest.router.model_copy(update=asked)
    manifest = artifact.manifest.model_copy(update={"router": router})
    engine = Engine(replace(artifact, manifest=manifest), provider="cpu")
    switch = Switch(tmp_path / "vectors")
    switch.keep(slices.names)
    switch.write(ControlState(epoch=1, in_force=(0,)), "acme")
    service = Service(engine, ServingConfig(risk=0.2, evidence=1e-9), switch=switch)
    sent = json.dumps(body).encode()
    replies = service.answer(
        [
            RawRequest(sent, headers, protocol=protocol)
            for headers in ({}, {"x-skipserve-slice": "acme"}, {"x-skipserve-slice": "x" * 65})
        ]
    )
    assert [reply.status for reply in replies] == [200, 200, 400]
    risks = [reply.headers.get("x-skipserve-risk") for reply in replies]
    assert risks == [None, "0.2", None]
    assert b"tenant has 65 characters" in replies[2].body
    switch.close()
