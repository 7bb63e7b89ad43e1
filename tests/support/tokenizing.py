"""A small tokenizer and a network of texts that takes strings."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import write_manifest
from skipserve.files import sha256_of
from skipserve.preprocessing.config import NeededFile, TextInput

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "great", "dull", "film", "##s", "a", "the", "very")
LONGEST = 12


def tokenizer() -> Tokenizer:
    """BERT's kind of tokenizer, of eleven words."""
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def text_input(folder: Path, **fields: object) -> TextInput:
    """Write the tokenizer into a folder; what a manifest says of it."""
    file = folder / "tokenizer.json"
    tokenizer().save(str(file))
    needed = NeededFile(path=file.name, sha256=sha256_of(file), size_bytes=file.stat().st_size)
    return TextInput.model_validate({"tokenizer": needed, "longest": LONGEST, **fields})


def taking_texts(artifact: Artifact, folder: Path) -> Artifact:
    """A copy of an artifact of tokens in a folder, which takes texts as well."""
    for entry in artifact.directory.iterdir():
        (folder / entry.name).write_bytes(entry.read_bytes())
    example = artifact.manifest.example.model_copy(update={"value": "a great film"})
    made = {"preprocessing": text_input(folder), "example": example}
    write_manifest(folder, artifact.manifest.model_copy(update=made))
    return open_artifact(folder)
