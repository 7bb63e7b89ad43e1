"""Clients of text-embeddings-inference, OpenAI and vLLM, at a real service of models of texts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import texts
from huggingface_hub import InferenceClient
from running import Running, serving
from text_models import KINDS, SENT

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import HANDLER
from skipserve.hosts.torchserve.packaging import package
from skipserve.runtime.engine import Engine

pytestmark = pytest.mark.server


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


def test_a_ready_service_is_healthy(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200


def test_tokenize_and_info(client: httpx.Client) -> None:
    (tokens,) = client.post("/tokenize", json={"inputs": "A films", "model": "pairs"}).json()
    assert [one["text"] for one in tokens] == ["[CLS]", "A", "film", "s", "[SEP]"]
    assert tokens[0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (tokens[2]["id"], tokens[2]["start"], tokens[2]["stop"]) == (6, 2, 6)
    plain = {"inputs": ["a"], "add_special_tokens": False, "model": "pairs"}
    assert [one["id"] for one in client.post("/tokenize", json=plain).json()[0]] == [8]
    # Also of a text that is longer than what the model reads.
    long = {"inputs": ["film " * 5_000, "dull"], "model": "pairs"}
    assert [len(one) for one in client.post("/tokenize", json=long).json()] == [5_002, 3]
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
    probabilities = 1 / (1 + np.exp(-pairs))
    np.testing.assert_allclose([one["score"] for one in scored["data"]], probabilities, atol=1e-5)
    ranked = {"model": "pairs", "query": "dull", "documents": SENT}
    results = client.post("/v1/rerank", json=ranked).json()["results"]
    relevance = {one["index"]: one["relevance_score"] for one in results}
    np.testing.assert_allclose([relevance[i] for i in range(3)], probabilities, atol=1e-5)
    asked = {"model": "pairs", "text_1": "dull", "text_2": SENT}
    for name in ("use_activation", "activation", "softmax"):
        logits = client.post("/score", json={**asked, name: False}).json()["data"]
        np.testing.assert_allclose([one["score"] for one in logits], pairs, atol=1e-5)
        results = client.post("/v1/rerank", json={**ranked, name: False}).json()["results"]
        assert [one["relevance_score"] for one in results] == pytest.approx(
            np.sort(pairs)[::-1], abs=1e-5
        )
    pooled = {"model": "vectors", "input": SENT, "encoding_format": "base64"}
    (first, *_) = client.post("/pooling", json=pooled).json()["data"]
    vector = np.frombuffer(base64.b64decode(first["data"]), "<f4")
    np.testing.assert_allclose(vector, answers(engines, "vectors", SENT[:1])[0], atol=1e-6)


CUT = "cuts long texts on the right; leave it out"


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
        ("/predict", {"inputs": "a", "parameters": {"top_k": -1}}, 400, "top_k must be at least"),
        ("/predict", {"inputs": "a", "parameters": {"top_k": 0}}, 400, "top_k must be at least 1"),
        ("/rerank", {"query": "a", "texts": []}, 400, "texts holds no row"),
        ("/rerank", {"query": "a", "texts": ["b"], "truncation_direction": "Left"}, 400, CUT),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 400, CUT),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 400, "truncation_direction"),
        ("/predict", {"inputs": "a", "truncation_direction": "left"}, 400, CUT),
        (
            "/similarity",
            {
                "inputs": {"source_sentence": "a", "sentences": ["b"]},
                "parameters": {"truncation_direction": "Left"},
            },
            400,
            CUT,
        ),
        ("/pooling", {"input": "a", "model": "pairs", "truncation_side": "left"}, 400, CUT),
        ("/score", {"text_1": "a", "text_2": "b", "truncation_side": "left"}, 400, CUT),
        (
            "/score",
            {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 3},
            400,
            "truncate_prompt_tokens",
        ),
        ("/classify", {"input": "a", "use_activation": False}, 400, "use_activation must be true"),
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
    if path in ("/score", "/pooling", "/classify", "/v1/rerank"):
        error = error["message"]
    else:
        assert set(reply.json()) == {"error", "error_type"}
    assert says in error
    assert "\n" not in error


@pytest.mark.parametrize("side", ["Right", "right", None])
def test_the_side_that_the_model_cuts_may_be_named(client: httpx.Client, side: str | None) -> None:
    asked = {"inputs": "great film", "truncation_direction": side}
    assert client.post("/embed", json=asked).status_code == 200
    assert client.post("/predict", json=asked).status_code == 200
    scored = {"text_1": "a", "text_2": "b", "truncation_side": side and side.lower()}
    assert client.post("/score", json={**scored, "truncate_prompt_tokens": -1}).status_code == 200


def test_a_list_of_token_ids_is_one_row_of_any_length(client: httpx.Client) -> None:
    ids = [2, *[8, 4] * 5, 3]  # more than the 8 rows that the service answers at once
    alone = client.post("/embed", json={"inputs": ids})
    assert alone.status_code == 200, alone.text
    assert len(alone.json()) == 1
    again = client.post("/v1/embeddings", json={"model": "vectors", "input": ids}).json()
    np.testing.assert_allclose(again["data"][0]["embedding"], alone.json()[0], atol=1e-6)
    assert client.post("/predict", json={"inputs": ids}).status_code == 200
    for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        for rows in ([[2, 8, 3]] * 9, ["a"] * 9):
            refused = client.post(path, json={field: rows, "model": "vectors"})
            assert refused.status_code == 413, refused.text
            assert "9 rows, at most 8" in refused.text


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
