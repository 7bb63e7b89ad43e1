"""Manifests of models that take other inputs, for tests of protocols."""

from __future__ import annotations

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Manifest
from skipserve.signature import BATCH, Dtype, Signature, TensorSpec


def spec(name: str, dtype: Dtype, *row_shape: int | str) -> TensorSpec:
    """An input with rows of a shape."""
    return TensorSpec(name=name, dtype=dtype, shape=(BATCH, *row_shape))


def taking(artifact: Artifact, *inputs: TensorSpec, mask: str | None = None) -> Manifest:
    """The manifest of an artifact, as if its network took these inputs."""
    manifest = artifact.manifest
    signature = Signature(inputs=inputs, outputs=manifest.signature.outputs, mask=mask)
    return manifest.model_copy(update={"signature": signature})
