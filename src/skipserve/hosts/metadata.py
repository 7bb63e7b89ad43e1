"""What the Open Inference Protocol and V1 tell of a server and of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.oip_replies import outputs_of
from skipserve.protocols.oip_tensors import datatype_of
from skipserve.protocols.oip_values import described
from skipserve.versions import version_of

EXTENSIONS = ("binary_tensor_data",)


def server_metadata() -> dict[str, Any]:
    """Of the server."""
    version = version_of("skipserve")
    return {"name": "skipserve", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(manifest: Manifest, versions: Sequence[str]) -> dict[str, Any]:
    """Of a model: every input and output, -1 where a dimension is free.

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


def v1_status(name: str, versions: Sequence[str], ready: bool) -> dict[str, Any]:
    """Of a model, for KServe's clients (``ready``) and for TensorFlow Serving's (the rest)."""
    states = [
        {
            "version": version,
            "state": "AVAILABLE" if ready else "LOADING",
            "status": {"error_code": "OK", "error_message": ""},
        }
        for version in versions
    ]
    return {"name": name, "ready": ready, "model_version_status": states}
