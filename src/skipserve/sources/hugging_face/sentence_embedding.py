"""Sentence embeddings: a folder of sentence-transformers as one graph with pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder, read_json
from skipserve.sources.hugging_face.pooling import pooling_of
from skipserve.sources.hugging_face.text_network import export_texts, inputs_of
from skipserve.sources.hugging_face.tokens import open_tokenizer
from skipserve.sources.read import ReadSource

TEXTS_CONFIG, PROMPTS_CONFIG = "sentence_bert_config.json", "config_sentence_transformers.json"
# The vector does not depend on these weights, and many folders lack them.
UNUSED = ("pooler.",)


def read_sentence_embedder(folder: Folder, exporters: Sequence[Exporter]) -> ReadSource:
    """A folder's network, pooling and tokenizer.

    Raises:
        ConfigError: If its modules or tokenizer are none that can be brought.
        CutError: If the network cannot be exported.
    """
    require("tokenizers")
    pooling = pooling_of(folder)
    if folder.graph is not None:
        raise ConfigError(
            f"{folder.path} has weights in {folder.graph.name} alone, which pools nothing; "
            "expected model.safetensors"
        )
    tokenizer = _open_tokenizer(folder)
    # Torch takes seconds to import; a folder that is refused does without.
    from skipserve.sources.hugging_face.exporting import Pooled
    from skipserve.sources.hugging_face.weights import load

    model = load(folder, "AutoModel", UNUSED)
    module = Pooled(model, inputs_of(model, tokenizer), pooling.mode, pooling.unit).eval()
    network = export_texts(folder, tokenizer, module, exporters)
    notes = (*network.notes, *_prompts(folder))
    return replace(network, notes=notes).read(folder, tokenizer)


def _open_tokenizer(folder: Folder) -> Any:
    """The tokenizer, with the text settings of sentence-transformers."""
    tokenizer, config = open_tokenizer(folder), read_json(folder.path / TEXTS_CONFIG)
    if config.get("max_seq_length"):
        tokenizer.model_max_length = int(config["max_seq_length"])
    if config.get("do_lower_case") and not _lowers(tokenizer):
        raise ConfigError(
            f"{folder.path / TEXTS_CONFIG} lowers texts before they are tokenized "
            "(do_lower_case), which is not done; expected a tokenizer that does it itself"
        )
    return tokenizer


def _lowers(tokenizer: Any) -> bool:
    """Whether the tokenizer lower-cases texts itself."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("AZ") == "az"


def _prompts(folder: Folder) -> list[str]:
    """A note about prompts, if the folder has any."""
    prompts = read_json(folder.path / PROMPTS_CONFIG).get("prompts") or {}
    named = [name for name, prompt in prompts.items() if prompt]
    if not named:
        return []
    return [f"prompts ({', '.join(named)}) are not put before texts: who asks sends them along"]
