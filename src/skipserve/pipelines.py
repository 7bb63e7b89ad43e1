"""Pipelines with the interface of transformers, answered by an artifact without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from skipserve.artifacts.artifact import find_artifact
from skipserve.errors import ConfigError
from skipserve.runtime.engine import Engine
from skipserve.tasks import label_names

# A text, or a pair of texts by ``text`` and ``text_pair``.
Text: TypeAlias = str | Mapping[str, str]
Scores: TypeAlias = dict[str, Any]

BATCH = 32
# Rows whose tensors stand in memory at once.
TOGETHER = 8 * BATCH
# Longest path; base64 is mostly longer.
LONGEST_PATH = 4096


class _Classification:
    """The common part of both classification pipelines.

    Args:
        engine: Of a model that takes such values.
        risk: ε of the router; full depth for ``None``, or where nothing so careful is certified.

    Raises:
        ConfigError: If the model takes none.
    """

    kind: ClassVar[Literal["text", "picture"]]

    def __init__(self, engine: Engine, risk: float | None) -> None:
        manifest = engine.manifest
        if manifest.preprocessing is None or manifest.preprocessing.kind != self.kind:
            raise ConfigError(
                f"{manifest.name} takes no {self.kind}s; bring a Hugging Face folder with its "
                f"{'tokenizer' if self.kind == 'text' else 'processor'}"
            )
        if manifest.task.output != "probabilities":
            raise ConfigError(
                f"{manifest.name} does not classify: its task is {manifest.task.kind}"
            )
        self._engine = engine
        self._setting = engine.setting(risk)
        self._names = label_names(manifest.task)

    def _ranks(
        self, values: Sequence[object], opened: Callable[[object], object] = lambda value: value
    ) -> list[list[Scores]]:
        """Every label and its score for each of any number of values, best first.

        Args:
            values: At least one.
            opened: Makes what the model takes of a value.
        """
        ranks = []
        for first in range(0, len(values), TOGETHER):
            some = [opened(one) for one in values[first : first + TOGETHER]]
            rows = self._engine.inputs.prepare_many(some, first)
            probabilities = self._engine.run_batches(rows, self._setting, BATCH).answers
            ranks += [self._ranked(row) for row in probabilities.tolist()]
        return ranks

    def _ranked(self, row: Sequence[float]) -> list[Scores]:
        told = [
            {"label": name, "score": score} for name, score in zip(self._names, row, strict=True)
        ]
        return sorted(told, key=lambda one: one["score"], reverse=True)


class TextClassification(_Classification):
    """``pipeline("text-classification")`` of transformers, answered by an artifact.

    Args:
        engine: Of a model that takes texts.
        risk: ε of the router; full depth for ``None``, or where nothing so careful is certified.

    Raises:
        ConfigError: If the model takes no texts.
    """

    task = "text-classification"
    kind = "text"

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
        ranks = self._ranks(texts)
        if top_k == "":
            best = [one[0] for one in ranks]
            return best[0] if isinstance(inputs, Mapping) else best
        ranked = [one[:top_k] for one in ranks]
        return ranked[0] if alone else ranked


class ImageClassification(_Classification):
    """``pipeline("image-classification")`` of transformers, answered by an artifact.

    Args:
        engine: Of a model that takes pictures.
        risk: ε of the router; full depth for ``None``, or where nothing so careful is certified.

    Raises:
        ConfigError: If the model takes no pictures.
    """

    task = "image-classification"
    kind = "picture"

    def __call__(self, inputs: Any, top_k: int | None = 5) -> list[Any]:
        """Classify pictures.

        Args:
            inputs: A path, base64, a Pillow image or an array of pixels; or a list of them.
            top_k: How many labels to tell of each, best first; ``None`` is all.

        Returns:
            As transformers: labels and scores of a single picture, or a list of such.

        Raises:
            InputError: Naming the row that is no picture.
        """
        alone = not isinstance(inputs, list | tuple)
        pictures = [inputs] if alone else inputs
        if not pictures:
            return []
        ranked = [one[:top_k] for one in self._ranks(pictures, _opened)]
        return ranked[0] if alone else ranked


def _opened(picture: object) -> object:
    """The bytes of a file that is named; others as they are."""
    if isinstance(picture, os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, str) and len(picture) <= LONGEST_PATH and _names_a_file(picture):
        return Path(picture).read_bytes()
    return picture


def _names_a_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # base64 that is too long for the name of a file
        return False


def pipeline(task: str, model: str | os.PathLike[str], risk: float | None = None) -> Any:
    """A pipeline of an artifact.

    Args:
        task: ``text-classification`` (or ``sentiment-analysis``, as transformers also calls it) or
            ``image-classification``.
        model: A name in artifacts/, or an artifact directory.
        risk: ε of the router.

    Raises:
        ConfigError: If there is no such pipeline or artifact.
    """
    known: dict[str, type[TextClassification] | type[ImageClassification]] = {
        TextClassification.task: TextClassification,
        "sentiment-analysis": TextClassification,
        ImageClassification.task: ImageClassification,
    }
    if task not in known:
        raise ConfigError(f"there is no pipeline for {task!r}, only for {', '.join(known)}")
    return known[task](Engine(find_artifact(model)), risk)
