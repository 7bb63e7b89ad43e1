"""Preprocessing settings in the manifest: what a model takes, and how it becomes tensors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from skipserve.preprocessing.picture_config import PictureInput
from skipserve.schema import Record, Sha256

Schema: TypeAlias = dict[str, Any]


class NeededFile(Record):
    """A file of the artifact that preprocessing needs.

    Attributes:
        path: Its name.
        sha256: Of its content.
        size_bytes: Of its content.
    """

    path: str
    sha256: Sha256
    size_bytes: int


class TextInput(Record):
    """Texts or pairs of texts, tokenised by the model's own tokenizer.

    Attributes:
        tokenizer: A ``tokenizer.json`` of the library tokenizers.
        longest: Most tokens of a row, special ones included; longer ones are truncated.
        truncation: The side that is cut off.
        ids: The input that gets the tokens.
        mask: The one that says which of them are real (1) and which are padding (0), if any.
        types: The one that says which text of a pair a token is of (0 or 1), if any.
        padding: Token behind the end of a row that is shorter than the longest of its batch.
    """

    kind: Literal["text"] = "text"
    tokenizer: NeededFile
    longest: Annotated[int, Field(ge=1)]
    truncation: Literal["left", "right"] = "right"
    ids: str = "input_ids"
    mask: str | None = "attention_mask"
    types: str | None = None
    padding: Annotated[int, Field(ge=0)] = 0

    @property
    def files(self) -> tuple[NeededFile, ...]:
        """The files that it needs."""
        return (self.tokenizer,)

    @property
    def name(self) -> str:
        """The name of the tensor in the Open Inference Protocol."""
        return "text"

    @property
    def takes(self) -> str:
        """A value in words, for errors: "expected …"."""
        return 'a text, or a pair of texts: ["…", "…"] or {"text": "…", "text_pair": "…"}'

    @property
    def schema_of_value(self) -> Schema:
        """JSON Schema of one value."""
        text = {"type": "string"}
        pair = {
            "type": "object",
            "properties": {"text": text, "text_pair": text},
            "required": ["text"],
            "additionalProperties": False,
        }
        listed = {"type": "array", "items": text, "minItems": 2, "maxItems": 2}
        return {"anyOf": [text, listed, pair]}

    @property
    def widest(self) -> int:
        """Most strings in one value in the Open Inference Protocol."""
        return 2


Preprocessing: TypeAlias = Annotated[TextInput | PictureInput, Field(discriminator="kind")]
