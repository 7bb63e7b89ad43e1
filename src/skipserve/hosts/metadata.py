"""Metadata of server and models: Open Inference Protocol, V1, TEI and OpenAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.oip_replies import outputs_of
from skipserve.protocols.oip_tensors import datatype_of
from skipserve.protocols.oip_values import described
from skipserve.tasks import label_names
from skipserve.versions import version_of

EXTENSIONS = ("binary_tensor_data",)


def server_metadata() -> dict[str, Any]:
    """Metadata of the server."""
    version = version_of("skipserve")
    return {"name": "skipserve", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(manifest: Manifest, versions: Sequence[str]) -> dict[str, Any]:
    """Metadata of a model: every input and output, -1 for free dimensions.

    A model with preprocessing tells of the tensor of texts or pictures alone: clients send all
    inputs that they are told of.

    Args:
        manifest: Of the version that answers.
        versions: All that are served.
    """
    inputs: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "datatype": datatype_of(spec),
            "shape": [-1 if isinstance(size, str) else size for size in spec.shape],
        }
        for spec in manifest.signature.inputs
    ]
    if manifest.preprocessing is not None:
        inputs = [described(manifest.preprocessing)]
    return {
        "name": manifest.model,
        "versions": list(versions),
        "platform": "skipserve_onnx",
        "inputs": inputs,
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in outputs_of(manifest.task).items()
        ],
    }


def model_list(names: Sequence[str]) -> dict[str, Any]:
    """All models, for clients of KServe (``models``) and OpenAI (the rest)."""
    data = [{"id": one, "object": "model", "created": 0, "owned_by": "skipserve"} for one in names]
    return {"models": list(names), "object": "list", "data": data}


def info_of(manifest: Manifest, max_rows: int) -> dict[str, Any]:
    """``/info`` of text-embeddings-inference; fields that do not exist here are ``null``."""
    task, text = manifest.task, manifest.text
    kind: dict[str, Any] = {"embedding": {"pooling": "none"}}
    if task.output == "probabilities" or task.kind == "score":
        names = label_names(task)
        labels = {
            "id2label": {str(i): one for i, one in enumerate(names)},
            "label2id": {one: i for i, one in enumerate(names)},
        }
        kind = {"reranker" if task.kind == "score" else "classifier": labels}
    return {
        "model_id": manifest.name,
        "model_sha": manifest.source.sha256,
        "model_dtype": "float32",
        "model_type": kind,
        "max_concurrent_requests": None,
        "max_input_length": None if text is None else text.longest,
        "max_batch_tokens": None,
        "max_batch_requests": None,
        "max_client_batch_size": max_rows,
        "auto_truncate": True,
        "tokenization_workers": None,
        "version": version_of("skipserve"),
        "sha": None,
        "docker_label": None,
    }


def v1_status(name: str, versions: Sequence[str], ready: bool) -> dict[str, Any]:
    """Status of a model, for clients of KServe (``ready``) and TensorFlow Serving (the rest)."""
    states = [
        {
            "version": version,
            "state": "AVAILABLE" if ready else "LOADING",
            "status": {"error_code": "OK", "error_message": ""},
        }
        for version in versions
    ]
    return {"name": name, "ready": ready, "model_version_status": states}
