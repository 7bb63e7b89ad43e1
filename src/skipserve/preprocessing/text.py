"""Texts to tokens, as transformers makes them, from the model's own ``tokenizer.json``."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ArtifactError, InputError, listed, quoted
from skipserve.extras import require
from skipserve.preprocessing.config import TextInput
from skipserve.preprocessing.preprocessor import Token

# Characters of a text, and of the pair it may be of. All of them are tokenized before the rest is
# cut off, at about a million a second, and no other request is answered meanwhile.
LONGEST_TEXT = 1 << 18
PAIR = ("text", "text_pair")

# Of a long text so many characters for each token that fits are tokenized first, and no more if so
# many tokens are left over.
CHARACTERS, BEHIND = 8, 16
_BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z0-9])[ \n](?=[A-Za-z0-9])")
# Pretokenizers that part words at a space, whatever stands on its other side.
_PARTING = frozenset(
    {"BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace"}
    | {"WhitespaceSplit"}
)

Value: TypeAlias = str | tuple[str, str]


class Texts:
    """Tokens of texts.

    Args:
        config: What the artifact says.
        directory: Of the artifact.

    Raises:
        ArtifactError: If its tokenizer cannot be read.
        LaunchError: If the library tokenizers is not installed.
    """

    def __init__(self, config: TextInput, directory: Path) -> None:
        require("tokenizers")
        # A service has the cores it was given; the library would take all of them.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        file = directory / config.tokenizer.path
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # it raises nothing more specific
            raise ArtifactError(f"{file} cannot be read as a tokenizer: {error}") from None
        try:
            # What parses may yet lack the tokens that its own templates name.
            _made(self._tokenizer.encode_batch_fast, ["a"])
        except Exception as error:
            raise ArtifactError(f"{file} cannot make tokens: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(config.longest, direction=config.truncation)
        self._config = config
        # Characters that are mostly enough to fill a row; 0 where all of a text is needed.
        alone = config.truncation == "right" and _takes_words_alone(file)
        self._enough = CHARACTERS * config.longest if alone else 0

    def __call__(self, values: Sequence[object], first: int = 0) -> dict[str, NDArray[Any]]:
        """Tokens of each text or pair [N, length], as many as the longest has; int64.

        Args:
            values: Strings, bytes in UTF-8, pairs of either, or objects with ``text`` and
                ``text_pair``.
            first: Number of the first, for the error.

        Raises:
            InputError: Naming the row that is no such value, is too long, or has no token.
        """
        texts = [self._value(value, row) for row, value in enumerate(values, first)]
        rows = self._encoded(texts)
        lengths = [len(row.ids) for row in rows]
        if not all(lengths):
            bad = first + lengths.index(0)
            raise InputError(
                "empty", f"row {bad} has no token at all; send a text with something in it", bad
            )
        config, longest = self._config, max(lengths)
        tensors = {config.ids: np.full((len(rows), longest), config.padding, np.int64)}
        for name in (config.mask, config.types):
            if name is not None:
                tensors[name] = np.zeros((len(rows), longest), np.int64)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            tensors[config.ids][i, :length] = row.ids
            if config.mask is not None:
                tensors[config.mask][i, :length] = 1
            if config.types is not None:
                tensors[config.types][i, :length] = row.type_ids
        return tensors

    def tokens(self, values: Sequence[object], special: bool) -> list[list[Token]]:
        """All tokens of each text, with special ones or without, however many the model takes."""
        texts = [_text(value, row) for row, value in enumerate(values)]

        def encode(some: Sequence[Value]) -> list[Any]:
            # Not the fast encoding, which has no offsets.
            made: list[Any] = self._whole.encode_batch(some, add_special_tokens=special)
            return made

        found = []
        for made, text in zip(_made(encode, texts), texts, strict=True):
            marks = zip(made.ids, made.tokens, made.special_tokens_mask, made.offsets, strict=True)
            found.append(
                [
                    Token(one, name, True, None, None)
                    if mask
                    else Token(one, text[start:stop], False, start, stop)
                    for one, name, mask, (start, stop) in marks
                ]
            )
        return found

    @cached_property
    def _whole(self) -> Any:
        """The tokenizer that cuts nothing; most models are never asked for it."""
        whole = copy.deepcopy(self._tokenizer)
        whole.no_truncation()
        return whole

    def _encoded(self, texts: Sequence[Value]) -> list[Any]:
        """The tokens that fit of every text; only the beginning of a long text is tokenised."""
        encode = self._tokenizer.encode_batch_fast
        begun = [self._beginning(text) for text in texts]
        rows = _made(encode, begun)
        for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
            if begun[i] is not text and sum(map(len, row.overflowing)) < BEHIND:
                rows[i] = _made(encode, [text])[0]
        return rows

    def _beginning(self, text: Value) -> Value:
        if not self._enough or not isinstance(text, str) or len(text) <= self._enough:
            return text
        between = _BETWEEN_WORDS.search(text, self._enough)
        return text if between is None else text[: between.start()]

    def _value(self, value: object, row: int) -> Value:
        if isinstance(value, str | bytes):
            return _text(value, row)
        parts: Sequence[object] = ()
        if isinstance(value, dict) and "text" in value and value.keys() <= {*PAIR}:
            second = value.get("text_pair")
            parts = [value["text"], *([] if second is None else [second])]
        elif isinstance(value, list | tuple) and len(value) == 2:
            parts = value
        if not parts or not all(isinstance(part, str | bytes) for part in parts):
            raise InputError(
                "wrong_type", f"row {row} is {_kind(value)}; expected {self._config.takes}", row
            )
        text, *pair = (_text(part, row) for part in parts)
        return (text, pair[0]) if pair else text


def _made(encode: Callable[[Sequence[Value]], list[Any]], values: Sequence[Value]) -> list[Any]:
    """Encode texts; a panic of the Rust library becomes an error."""
    try:
        return encode(values)
    except BaseException as error:
        # No Exception, lest anybody catch it by accident; its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the tokenizer failed: {error}") from None


def _takes_words_alone(file: Path) -> bool:
    """Whether the tokens of a word do not depend on the text behind the next space."""
    told = json.loads(file.read_text())
    before = told.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    parts = all(
        step.get("type") in _PARTING and step.get("split", True) and step.get("use_regex", True)
        for step in steps
    )
    # An added token with a space inside or beside it could be cut in half.
    added = all(
        not one.get("rstrip") and " " not in one["content"] and "\n" not in one["content"]
        for one in told.get("added_tokens", ())
    )
    return parts and added


def _text(value: object, row: int) -> str:
    assert isinstance(value, str | bytes)
    if len(value) > LONGEST_TEXT * (4 if isinstance(value, bytes) else 1):
        raise _too_long(len(value), row)
    try:
        text = value.decode() if isinstance(value, bytes) else value
        text.encode()
    except UnicodeError:  # bytes of another encoding, or half of a surrogate pair
        raise InputError("wrong_type", f"row {row} is no text in UTF-8", row) from None
    if len(text) > LONGEST_TEXT:
        raise _too_long(len(text), row)
    return text


def _too_long(length: int, row: int) -> InputError:
    return InputError(
        "too_long",
        f"row {row} has {length:,} characters, more than the {LONGEST_TEXT:,} that are read; "
        "send its beginning, or its parts as rows of their own",
        row,
    )


def _kind(value: object) -> str:
    """The JSON type of a value."""
    if isinstance(value, dict):
        return f"an object with {listed([quoted(one) for one in value]) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    words = {bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return words.get(type(value), type(value).__name__)
