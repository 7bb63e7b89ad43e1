"""Answers as transformers' own pipelines give them, from an artifact, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from skipserve.artifacts.artifact import find_artifact
from skipserve.errors import ConfigError
from skipserve.protocols.tei import label_names
from skipserve.runtime.engine import Engine

# A text, or a pair of texts by ``text`` and ``text_pair``.
Text: TypeAlias = str | Mapping[str, str]
Scores: TypeAlias = dict[str, Any]

BATCH = 32


class TextClassification:
    """``pipeline("text-classification")`` of transformers, answered by an artifact.

    Args:
        engine: Of a model that takes texts.
        risk: ε of the router; full depth for ``None``, or where nothing so careful is certified.

    Raises:
        ConfigError: If the model takes no texts.
    """

    task = "text-classification"

    def __init__(self, engine: Engine, risk: float | None) -> None:
        manifest = engine.manifest
        if manifest.preprocessing is None or manifest.preprocessing.kind != "text":
            raise ConfigError(
                f"{manifest.name} takes no texts; bring a Hugging Face folder with its tokenizer"
            )
        if manifest.task.output != "probabilities":
            raise ConfigError(
                f"{manifest.name} does not classify: its task is {manifest.task.kind}"
            )
        self._engine = engine
        self._setting = engine.setting(risk)
        self._names = label_names(manifest)

    def __call__(
        self, inputs: Text | Sequence[Text], top_k: int | Literal[""] | None = ""
    ) -> list[Any] | Scores:
        """Classify texts; a text that is longer than the model's is truncated.

        Args:
            inputs: A text, a pair ``{"text", "text_pair"}``, or a list of them.
            top_k: How many labels to tell of each, best first; ``None`` is all.

        Returns:
            As transformers: without ``top_k`` a label and score for each text, in a list for a
            single string, too, and bare for a single pair; with ``top_k`` a list of them for each.

        Raises:
            InputError: Naming the row that is no text.
        """
        alone = isinstance(inputs, str | Mapping)
        texts = [inputs] if alone else list(inputs)
        if not texts:
            return []
        probabilities = self._engine.run_batches(
            self._engine.prepare(texts), self._setting, BATCH
        ).answers.tolist()
        if top_k == "":
            best = [self._ranked(row)[0] for row in probabilities]
            return best[0] if isinstance(inputs, Mapping) else best
        ranked = [self._ranked(row)[:top_k] for row in probabilities]
        return ranked[0] if alone else ranked

    def _ranked(self, row: Sequence[float]) -> list[Scores]:
        told = [
            {"label": name, "score": score} for name, score in zip(self._names, row, strict=True)
        ]
        return sorted(told, key=lambda one: one["score"], reverse=True)


def pipeline(task: str, model: str | os.PathLike[str], risk: float | None = None) -> Any:
    """A pipeline of an artifact.

    Args:
        task: ``text-classification`` (or ``sentiment-analysis``, as transformers also calls it).
        model: A name in artifacts/, or an artifact directory.
        risk: ε of the router.

    Raises:
        ConfigError: If there is no such pipeline or artifact.
    """
    known = (TextClassification.task, "sentiment-analysis")
    if task not in known:
        raise ConfigError(f"there is no pipeline for {task!r}, only for {known[0]!r}")
    return TextClassification(Engine(find_artifact(model)), risk)
