"""The tokenizer of a folder, as transformers itself opens it."""

from __future__ import annotations

import hashlib
from typing import Any

from skipserve.artifacts.origin import Prepared
from skipserve.errors import ConfigError
from skipserve.preprocessing.config import NeededFile, TextInput
from skipserve.sources.hugging_face.folder import Folder

FILE = "tokenizer.json"
# Without one of these transformers makes up a tokenizer that knows no word.
VOCABULARIES = (
    *(FILE, "vocab.txt", "vocab.json"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model"),
)
# What transformers writes where no length is known.
UNKNOWN = 1_000_000


def open_tokenizer(folder: Folder) -> Any:
    """The tokenizer of a folder.

    Raises:
        ConfigError: If there is none, or none that the library tokenizers can run alone.
    """
    from transformers import AutoTokenizer

    # Who trains adapters saves the tokenizer beside them, or leaves it with the base.
    beside = [] if folder.adapter is None else [folder.adapter.path]
    places = [
        place
        for place in (*beside, folder.path)
        if any((place / name).is_file() for name in VOCABULARIES)
    ]
    if not places:
        raise ConfigError(
            f"{folder.path} has no tokenizer ({FILE}), so texts cannot become tokens; add the "
            "files that tokenizer.save_pretrained writes"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(places[0], local_files_only=True)
    except Exception as error:  # each family raises classes of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"the tokenizer of {folder.path} cannot be opened: {reason}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"the tokenizer of {folder.path} is written in Python alone; save it as {FILE} first"
        )
    if tokenizer.padding_side != "right":
        raise ConfigError(
            f"the tokenizer of {folder.path} pads on the left; expected padding_side = 'right'"
        )
    return tokenizer


def prepared_texts(folder: Folder, tokenizer: Any, inputs: tuple[str, ...]) -> Prepared:
    """What makes tokens of texts for a network of some inputs."""
    backend = tokenizer.backend_tokenizer
    content = backend.to_str().encode()
    needed = NeededFile(
        path=FILE, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    config = TextInput(
        tokenizer=needed,
        longest=longest_of(folder, tokenizer),
        truncation=tokenizer.truncation_side,
        mask="attention_mask" if "attention_mask" in inputs else None,
        types="token_type_ids" if "token_type_ids" in inputs else None,
        padding=tokenizer.pad_token_id or 0,
    )
    return Prepared(config, {FILE: content})


def longest_of(folder: Folder, tokenizer: Any) -> int:
    """Most tokens of a row: what the tokenizer says, and no more than the network has places for.

    Raises:
        ConfigError: If neither says.
    """
    places = most_places(folder)
    said = tokenizer.model_max_length
    known = [one for one in (said if said < UNKNOWN else None, places) if one is not None]
    if not known:
        raise ConfigError(
            f"neither the tokenizer nor the network of {folder.path} says how long a text may be; "
            "set model_max_length in tokenizer_config.json"
        )
    return int(min(known))


def most_places(folder: Folder) -> int | None:
    """Tokens that the network has positions for, ``None`` where it does not say."""
    config = folder.config
    places = config.get("max_position_embeddings")
    if places is None:
        return None
    # These count from behind the padding's own position.
    behind = config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return int(places) - (config.get("pad_token_id", 1) + 1 if behind else 0)
