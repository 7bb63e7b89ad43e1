"""The task that a Hugging Face folder proposes: by its settings, before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skipserve.errors import ConfigError
from skipserve.schema import parse
from skipserve.sources.hugging_face.folder import EMBEDDINGS, TEXTS, Folder, is_folder, open_folder
from skipserve.tasks import Kind, TaskConfig, needs_tolerance

# What sentence-transformers writes into a cross-encoder's config: since its version 4, and before.
CROSS_ENCODERS = ("sentence_transformers", "sbert_ce_default_activation_function")
_ANSWERS = {"regress": "numbers", "score": "one number for each pair of texts"}


def proposed_kind(folder: Folder, pairs: bool = False) -> Kind:
    """What the answers of a folder's network are.

    Args:
        folder: The folder.
        pairs: Whether its texts come in pairs.

    Returns:
        ``embed`` for sentence-transformers, ``multilabel`` and ``regress`` by ``problem_type``,
        ``regress`` or, for pairs of texts, ``score`` where there is one label, else ``classify``.
    """
    config = folder.config
    if folder.family == EMBEDDINGS:
        return "embed"
    problem = config.get("problem_type")
    if problem == "multi_label_classification":
        return "multilabel"
    one = (config.get("num_labels") or len(config.get("id2label") or {}) or 2) == 1
    if not one and problem != "regression":
        return "classify"
    pairs = pairs or any(config.get(key) for key in CROSS_ENCODERS)
    return "score" if one and pairs and folder.family == TEXTS else "regress"


def task_of(
    folder: Path | None, given: Mapping[str, Any], where: str, pairs: bool = False
) -> TaskConfig:
    """The task of a network that is brought: what is said of it, else what its folder proposes.

    Args:
        folder: A Hugging Face folder, or ``None`` for other sources, which are ``classify``.
        given: What is said, as in the section [task].
        where: It is said, for the error.
        pairs: Whether its texts come in pairs.

    Raises:
        ConfigError: If it is wrong, the folder cannot be brought, or a tolerance is missing.
    """
    if folder is None or "kind" in given or not is_folder(folder):
        return parse(TaskConfig, given, where)
    kind = proposed_kind(open_folder(folder), pairs)
    if kind in _ANSWERS and "tolerance" not in given:
        raise ConfigError(f"{folder} answers with {_ANSWERS[kind]}, and {needs_tolerance(kind)}")
    return parse(TaskConfig, {**given, "kind": kind}, where)
