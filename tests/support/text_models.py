"""Certified models of texts, one of each task, with a tokenizer."""

from __future__ import annotations

from pathlib import Path

import texts
from tokenizing import taking_texts

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import write_manifest
from skipserve.certification.certifying import certify_artifact
from skipserve.runtime.engine import Engine

SENT = ["a great film", "dull", "the very very great films"]
KINDS = {"masked": "classify", "vectors": "embed", "pairs": "score"}


def make(texts_root: Path, folder: Path) -> None:
    """Make them, each in a folder of its name.

    Args:
        texts_root: The project that networks of texts are brought to.
        folder: Where they will be.
    """
    for name in KINDS:
        (folder / name).mkdir()
        true_example(taking_texts(open_artifact(texts.build(texts_root, name)), folder / name))
        certify_artifact(
            folder / name, texts.texts(400, texts.LENGTH, seed=1), [0.2], batch_size=64
        )


def true_example(artifact: Artifact) -> Artifact:
    """The same with an example that is what its text becomes."""
    engine, example = Engine(artifact, provider="cpu"), artifact.manifest.example
    row = engine.inputs.prepare([example.value])
    answer = tuple(engine.run(row).answers[0].tolist())
    inputs = {name: tensor[0].tolist() for name, tensor in row.tensors.items()}
    told = example.model_copy(update={"inputs": inputs, "answer": answer})
    write_manifest(artifact.directory, artifact.manifest.model_copy(update={"example": told}))
    return artifact
